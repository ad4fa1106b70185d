"""Plans, the subscriptions of users, and usage: per period, and over all users."""
