"""Tools that are webhooks: how administrators register them. Calling them is not done here."""
