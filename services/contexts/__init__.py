"""What a prompt holds besides the conversation: the user, their memories, their knowledge."""
