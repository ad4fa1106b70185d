"""Alerts: what administrators should know of without having looked for it."""
