"""The command line, `lucid-sessions`: a recorder, an auditor and an operator in one."""
