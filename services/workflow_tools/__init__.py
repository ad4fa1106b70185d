"""Tools that are webhooks: how administrators register them, how they are called and answer."""
