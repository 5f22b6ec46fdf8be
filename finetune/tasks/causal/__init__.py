"""The losses of causal language models, computed fast. Its modules need torch, and the chat task imports them late."""
