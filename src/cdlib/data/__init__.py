"""Images, who gave them, and which coalitions are asked for."""
