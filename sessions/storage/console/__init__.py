"""The web console: `site.py` serves what is in `static/`."""
