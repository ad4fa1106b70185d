"""What a turn is told besides the conversation: who asks, what is remembered, what is known."""
