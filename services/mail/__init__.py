"""Mail to users: what is asked for (`outbox.py`), its words (`texts.py`), how it is sent."""
