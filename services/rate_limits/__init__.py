"""Rate limits: rules and their subjects, counted by the library `limits`."""
