"""One-shot programs of a deployment, in session-storage's image: they prepare its database and a development chain."""
