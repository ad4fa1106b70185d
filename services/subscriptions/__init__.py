"""Plans, who has which, and what was used: in the periods of subscriptions, and over all users."""
