"""Alerts: raised and listed (`service.py`), and sent to the operator's webhook (`delivery.py`)."""

from services.alerts.service import AlertService, DefectAlerts, OnAlert, raise_alert

__all__ = ["AlertService", "DefectAlerts", "OnAlert", "raise_alert"]
