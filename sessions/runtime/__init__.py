"""What any of our processes needs: settings, logs, problems, access, health, a server. Knows `sessions.core` only."""
