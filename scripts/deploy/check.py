"""`scripts/deploy-check`: whether a deployment works, and if it does not, what to do.

Looks at secrets, networks and containers, asks both services for their health, sends one small recording through,
verifies it and shreds it. Run it after `docker compose -f docker-compose.pi.yml up`, above all when that failed.
"""

import argparse
import json
import re
import ssl
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from scripts.deploy import engine, smoke
from scripts.deploy.engine import ROOT, Container, EngineError
from scripts.deploy.smoke import Service, SmokeError

_COLUMNS: Final = 80
_NETWORK: Final = "lucid-pi-network"
_PROJECT_LABEL: Final = "com.docker.compose.project"
_HINTS: Final = {
    r"port is already allocated|address already in use": "another program has this port: see `ss -ltnp`, stop it, or "
    "set BIND_ADDRESS in .env to an address where it is free",
    r"bind source path does not exist": "a secret is missing: sudo scripts/init-secrets, or put it back from a backup",
    r"No space left on device|disk has": "the disk is full: see `df -h` and `docker system df`, and make room",
    r"refuses this password|refuses this user|Authentication failed": "the secrets are not those that the database was "
    "made with: put back the right ones from your backup",
    r"configuration error: (KEK|TOKENS|STORAGE_TOKEN|CHAIN_KEY|MONGODB_)": "put this secret back from your backup; if "
    "there is no data yet, move it away and run sudo scripts/init-secrets",
    r"configuration error: CHAIN_": "see the chain's settings in .env, and docs/operations.md",
    r"configuration error: [A-Z_]+": "see this setting in .env",
    r"refuses our token": "secrets/tokens and secrets/storage-token belong together: put both back from one backup",
}
"""What is found in logs and probes, and what to do about it."""


def _show(head: str, text: str) -> None:
    """Print `text` behind `head`, each of its lines folded below its beginning."""
    for line in text.splitlines() or [""]:
        folded = textwrap.wrap(line, _COLUMNS - len(head), break_long_words=False, break_on_hyphens=False) or [""]
        for number, part in enumerate(folded):
            print(f"{head if number == 0 else '':{len(head)}}{part}".rstrip(), flush=True)
        head = " " * len(head)


class Report:
    """Prints what was found, and remembers whether something is wrong."""

    def __init__(self) -> None:
        self.bad = 0

    def ok(self, what: str, detail: str) -> None:
        """Something that is as it should be."""
        _show(f"  [ok]   {what:16} ", detail)

    def fail(self, what: str, detail: str, hint: str = "") -> None:
        """Something that is not, and what to do."""
        self.bad += 1
        _show(f"  [FAIL] {what:16} ", detail)
        if hint:
            _show("         -> ", hint)


def hint_for(text: str) -> str:
    """What to do about a message; empty when nothing is known about it."""
    return next((hint for pattern, hint in _HINTS.items() if re.search(pattern, text)), "")


def check_secrets(config: dict[str, Any], report: Report) -> None:
    """Whether each secret of the compose file is there. None is read."""
    missing = []
    for name, secret in sorted(config["secrets"].items()):
        try:
            Path(secret["file"]).lstat()
        except FileNotFoundError:
            missing.append(name)
        except PermissionError:
            report.ok("secrets", f"{Path(secret['file']).parent} is another user's, and was not looked into")
            return
    if missing:
        hint = "a new installation: sudo scripts/init-secrets; else put them back from your backup"
        report.fail("secrets", f"missing: {', '.join(missing)}", hint)
    else:
        report.ok("secrets", f"all {len(config['secrets'])} are there")


def check_network(config: dict[str, Any], networks: Iterable[dict[str, Any]], report: Report) -> None:
    """Whether our network can be made or joined."""
    external = bool(config["networks"]["lucid"].get("external"))
    subnets = {one["subnet"] for one in (config["networks"]["lucid"].get("ipam") or {}).get("config") or ()}
    for network in networks:
        ours = network["Labels"].get(_PROJECT_LABEL) == config["name"]
        if network["Name"] == _NETWORK:
            if not ours and not external:
                hint = "set LUCID_NETWORK_EXTERNAL=true in .env to join it"
                report.fail("network", f"{_NETWORK} is there already and was made by somebody else", hint)
            else:
                report.ok("network", f"{_NETWORK} is {'joined' if external else 'there'}")
            return
        taken = {one.get("Subnet") for one in network["IPAM"]["Config"] or ()}
        if not external and subnets & taken:
            hint = f"remove it (docker network rm {network['Name']}) or let it be named {_NETWORK} and join it"
            report.fail("network", f"the addresses {', '.join(subnets & taken)} are in {network['Name']}", hint)
            return
    if external:
        hint = f"docker network create --subnet 172.20.0.0/16 {_NETWORK}, or LUCID_NETWORK_EXTERNAL=false in .env"
        report.fail("network", f"{_NETWORK} is not there, and LUCID_NETWORK_EXTERNAL=true asks for it", hint)
    else:
        report.ok("network", f"{_NETWORK} will be made")


def check_containers(config: dict[str, Any], found: list[Container], report: Report) -> None:
    """Whether each container does what it is there for; if not, its last words."""
    by_service = {container.service: container for container in found}
    if not found:
        report.fail("containers", "there are none", "docker compose -f docker-compose.pi.yml up -d --wait")
        return
    for service in sorted(config["services"]):
        container = by_service.get(service)
        if container is None:
            report.fail(service, "has no container", "docker compose -f docker-compose.pi.yml up -d --wait")
        elif container.good:
            report.ok(service, container.health or ("has done its part" if container.state == "exited" else "runs"))
        else:
            _tell_of(container, report)


def _tell_of(container: Container, report: Report) -> None:
    state = container.health if container.state == "running" else container.state
    if container.state in ("exited", "restarting"):
        state += f", exit code {container.exit_code}"
    words = [container.error] if container.error else []
    words += [container.probe] if container.state == "running" and container.probe else []
    words += engine.last_words(container.name) if container.state != "created" else []
    text = "\n".join(words)
    if container.state == "created" and not container.error:
        report.fail(container.service, "was not started: it waits for one of the others")
        return
    report.fail(container.service, state, hint_for(text))
    for word in words:
        print(f"         {'':16} | {word}")


def check_health(services: dict[str, Service], report: Report) -> None:
    """What both services say of themselves."""
    for name, service in services.items():
        try:
            answer = service.ask("GET", "/health")
            said = answer.json
        except (SmokeError, json.JSONDecodeError) as error:
            report.fail(name, str(error), "see the containers above")
            continue
        bad = [f"{part}: {check['detail']}" for part, check in said["checks"].items() if check["status"] != "ok"]
        if answer.status != 200:  # noqa: PLR2004
            report.fail(name, "; ".join(bad), hint_for("; ".join(bad)))
        else:
            report.ok(name, f"{said['status']}, version {said['version']}" + "".join(f"\n{one}" for one in bad))


def reached(config: dict[str, Any], options: argparse.Namespace) -> dict[str, Service]:
    """The services where this machine reaches them, over TLS if they speak it."""
    services = {}
    for name, port in (("chunk-processor", 8085), ("session-storage", 8086)):
        service = config["services"][name]
        bound = service["ports"][0]["host_ip"]
        host = options.host or ("127.0.0.1" if bound == "0.0.0.0" else bound)  # noqa: S104 - what .env may say
        context = None
        if service["environment"].get("TLS_CERT_FILE"):
            # Verified, since the small recording sends tokens.
            context = ssl.create_default_context(cafile=options.ca)
            if options.cert:
                context.load_cert_chain(options.cert, options.key)
        services[name] = Service(host, port, context)
    return services


def main(arguments: list[str] | None = None) -> int:
    """Check; the exit status: 0 when all is well."""
    parser = argparse.ArgumentParser(prog="scripts/deploy-check", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tokens", type=Path, help="folder with record-, replay-, audit- and admin-token")
    parser.add_argument("--wait-anchor", type=float, default=0, metavar="SECONDS", help="wait for the anchor, too")
    parser.add_argument("--host", help="name of this machine in the certificates, when the services speak TLS")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="authority of the certificates; else the system's")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="certificate to show, when TLS_CLIENT_CA_FILE is set")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key")
    options = parser.parse_args(arguments)
    report = Report()
    try:
        print("Deployment")
        config = engine.configuration()
        check_secrets(config, report)
        check_network(config, engine.networks(), report)
        check_containers(config, engine.containers(config["name"]), report)
    except EngineError as error:
        report.fail("docker", str(error))
    if not report.bad:
        try:
            services = reached(config, options)
        except OSError as error:  # errors of TLS are such, too
            report.fail("tls", f"--ca, --cert or --key: {error}")
            services = {}
        print("Health")
        check_health(services, report)
        folder = options.tokens or Path(config["secrets"]["kek"]["file"]).parent / "operator"
        if not report.bad:
            print("A small recording")
            try:
                processor, storage = services.values()
                smoke.run(processor, storage, smoke.read_tokens(folder), options.wait_anchor, report.ok)
            except SmokeError as error:
                report.fail("recording", str(error), hint_for(str(error)))
    print("deploy-check: all is well" if not report.bad else f"deploy-check: FAILED ({report.bad} found)")
    return 1 if report.bad else 0


if __name__ == "__main__":
    assert ROOT.is_dir()
    sys.exit(main())
