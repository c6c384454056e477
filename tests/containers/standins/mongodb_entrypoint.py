"""First start as the official image does it: a server on the loopback alone makes the administrator, then the real one."""

import os
import subprocess
import sys
import time
from pathlib import Path

from pymongo import MongoClient

command = sys.argv[1:]
name = os.environ.pop("MONGO_INITDB_ROOT_USERNAME", "")
password_file = os.environ.pop("MONGO_INITDB_ROOT_PASSWORD_FILE", "")
if name and password_file:
    password = Path(password_file).read_text().rstrip("\n")
    if not Path("/data/db/WiredTiger").exists():
        first = [word for word in command if word != "--bind_ip_all"]
        server = subprocess.Popen([*first, "--dbpath", "/data/db", "--bind_ip", "127.0.0.1"])
        with MongoClient("mongodb://127.0.0.1:27017/", serverSelectionTimeoutMS=120_000) as client:
            client.admin.command("createUser", name, pwd=password, roles=["root"])
        server.terminate()
        while server.poll() is None:
            time.sleep(0.1)
    command.append("--auth")
os.execvp(command[0], [*command, "--dbpath", "/data/db"])
