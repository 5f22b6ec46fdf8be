"""Every family of models through the tool: tiny ones from their configurations, trained, scored, saved and loaded."""
