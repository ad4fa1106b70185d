"""What users teach the assistant: documents, and the passages that searches find."""
