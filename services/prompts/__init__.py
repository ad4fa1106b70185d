"""What the model is sent: the layers of the prompt, and what fits into them."""
