"""The program that writes the demo model's training text."""
