"""Files of users: checked, stored, attached to messages, and read again for models."""
