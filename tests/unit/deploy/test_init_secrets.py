"""scripts/init-secrets: who may read what it makes, and that it never overwrites."""

import os
import subprocess
from pathlib import Path

import pytest

from scripts.deploy import init_secrets
from sessions.processor import recovery
from sessions.processor.key_files import load_keks
from sessions.runtime.auth import Authenticator
from sessions.runtime.tokens import load_tokens
from sessions.storage.provision.database import _credentials

SERVICES, MONGODB = init_secrets.SERVICES_UID, init_secrets.MONGODB_UID
OWNERS = {
    "kek": SERVICES,
    "tokens": SERVICES,
    "storage-token": SERVICES,
    "mongodb-url": SERVICES,
    "mongodb-admin-url": SERVICES,
    "mongodb-root-password": MONGODB,
    "chain-key": SERVICES,
    "recovery-public": SERVICES,
}
PEOPLE = {"operator/record-token", "operator/replay-token", "operator/audit-token", "operator/admin-token"}


@pytest.fixture(autouse=True)
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """As root it would give files away; here it is written down to whom."""
    given: dict[str, int] = {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, uid, _gid: given.__setitem__(str(path), uid))
    monkeypatch.setattr(
        os, "fchown", lambda fd, uid, _gid: given.__setitem__(str(Path(f"/proc/self/fd/{fd}").readlink()), uid)
    )
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "1234")
    return given


@pytest.fixture
def env_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one's own, as far as .env goes."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / ".env.example").write_text("A=1\n")
    (root / "sessions").mkdir()
    (root / "sessions" / "__init__.py").write_text('__version__ = "7.8.9"\n')
    real = init_secrets.recovery_pair
    monkeypatch.setattr(
        init_secrets, "recovery_pair", lambda image: real(image) if image == "real" else recovery.generate()
    )
    monkeypatch.setattr(init_secrets, "ROOT", root)
    return root


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_is_made_once_each_for_its_reader(
    tmp_path: Path, env_files: Path, owners: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "secrets"
    command = ["--dir", str(folder), "--image", "any"]
    assert init_secrets.main(command) == 0
    said = capsys.readouterr().out
    made = _files(folder)
    assert set(made) == {*OWNERS, *PEOPLE, "operator/recovery-private"}
    for name in made:
        path = folder / name
        assert path.stat().st_mode & 0o777 == 0o400
        assert owners[f"{path}.new"] == OWNERS.get(name, 1234)
    assert folder.stat().st_mode & 0o777 == 0o700
    for word in ("Back up", "kek", "recovery-private off this machine", ".env"):
        assert word in said
    for content in made.values():
        assert content.decode().strip().rpartition(":")[2] not in said
    assert max(map(len, said.replace(str(folder), "secrets").splitlines())) <= 80
    assert (env_files / ".env").read_text() == "A=1\n"

    (env_files / ".env").write_text("A=2\n")
    assert init_secrets.main(command) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert _files(folder) == made
    assert (env_files / ".env").read_text() == "A=2\n"


def test_the_services_understand_what_is_made(tmp_path: Path, env_files: Path) -> None:
    folder = tmp_path / "secrets"
    assert init_secrets.main(["--dir", str(folder), "--image", "any"]) == 0
    assert load_keks(folder / "kek").active_id.startswith("kek-")
    authenticator = Authenticator(load_tokens(folder / "tokens"))
    for role in ("record", "replay", "audit", "admin"):
        token = (folder / "operator" / f"{role}-token").read_text().strip()
        assert authenticator.authenticate(f"Bearer {token}").roles == {role}
    own = (folder / "storage-token").read_text().strip()
    assert authenticator.authenticate(f"Bearer {own}").roles == {"processor"}
    root = (folder / "mongodb-root-password").read_text().strip()
    assert _credentials((folder / "mongodb-admin-url").read_text().strip()) == ("admin", root, "admin")
    assert _credentials((folder / "mongodb-url").read_text().strip())[0] == "session-storage"
    recovery.public_key((folder / "recovery-public").read_text())
    recovery.private_key((folder / "operator" / "recovery-private").read_text())


def test_what_was_taken_away_on_purpose_is_not_made_again(tmp_path: Path, env_files: Path) -> None:
    folder = tmp_path / "secrets"
    command = ["--dir", str(folder), "--image", "any"]
    assert init_secrets.main(command) == 0
    for name in (*PEOPLE, "operator/recovery-private"):
        (folder / name).unlink()
    made = _files(folder)
    assert init_secrets.main(command) == 0
    assert _files(folder) == made


def test_half_of_what_belongs_together_is_not_made_anew(
    tmp_path: Path, env_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "secrets"
    command = ["--dir", str(folder), "--image", "any"]
    assert init_secrets.main(command) == 0
    (folder / "storage-token").unlink()
    before = _files(folder)
    assert init_secrets.main(command) == 1
    said = capsys.readouterr().err
    assert "has tokens but not storage-token" in said
    assert "put it back from your backup" in said
    assert _files(folder) == before


def test_it_asks_for_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert init_secrets.main(["--dir", str(tmp_path / "secrets")]) == 1
    assert "sudo scripts/init-secrets" in capsys.readouterr().err
    assert not (tmp_path / "secrets").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, env_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert init_secrets.main(["--dir", str(tmp_path / "file" / "secrets")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("init-secrets: ")
    assert len(said.splitlines()) == 1


def test_without_the_image_the_recovery_pair_is_asked_for(
    tmp_path: Path, env_files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "secrets"
    assert init_secrets.main(["--dir", str(folder), "--image", "real"]) == 1
    assert "run scripts/build-images or pull it, then run this again" in capsys.readouterr().err
    assert (folder / "kek").exists()  # and the rest is there, to be completed
    (tmp_path / "docker").write_text("#!/bin/sh\necho nothing of the kind\n")
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(init_secrets.Refused, match="docker: no key"):
        init_secrets.recovery_pair("real")


def test_the_checkouts_own_python_makes_a_pair() -> None:
    private, public = init_secrets.recovery_pair("no such image")
    recovery.private_key(private)
    recovery.public_key(public)


def test_the_image_is_that_of_the_checkouts_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUCID_REGISTRY", raising=False)
    assert init_secrets.default_image() == "pickme/lucid-chunk-processor:0.1.0"
    monkeypatch.setenv("LUCID_REGISTRY", "example.org/me")
    monkeypatch.setenv("LUCID_VERSION", "9")
    assert init_secrets.default_image() == "example.org/me/lucid-chunk-processor:9"


@pytest.mark.parametrize("name", ["init-secrets", "deploy-check"])
def test_an_old_python_is_told_apart(name: str, tmp_path: Path) -> None:
    script = Path(init_secrets.__file__).parents[1] / name
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run([script], env={**os.environ, "PYTHON": str(old)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
