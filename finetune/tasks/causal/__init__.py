"""How causal language models compute their losses fast. Its modules need torch, and the chat task imports them late."""
