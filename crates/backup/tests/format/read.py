"""Reads a backup repository by docs/repository-format.md alone: nothing of obyra-db is used.

    read.py REPOSITORY MASTER list                          the clusters and their backups
    read.py REPOSITORY MASTER restore CLUSTER BACKUP INTO   the files of a backup
    read.py REPOSITORY MASTER wal CLUSTER INTO              the archive, as files of pg_wal
    read.py REPOSITORY MASTER numbers                       those of the document's example

REPOSITORY is a folder, MASTER a file with the 64 bytes that `age -d` finds in keys/…/….age. Needs cryptography,
zstandard and blake3.
"""

import json
import os
import sys

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BLOCK, EXTENT = 8192, 8 << 20
ZEROS = bytes(16)


def number(data, at, size):
    return int.from_bytes(data[at : at + size], "little")


class Pack:
    """An object that is a pack, under its name."""

    def __init__(self, repository, name, entry=None):
        with open(os.path.join(repository.folder, name), "rb") as file:
            self.data = file.read()
        self.name = name.encode()
        if self.data[:8] != b"OBYRAPK1" or self.data[-40:-32] != b"OBYRAEND":
            raise SystemExit(f"{name}: not a pack")
        if blake3(self.data[:-32]).digest() != self.data[-32:]:
            raise SystemExit(f"{name}: damaged")
        if entry and self.data[-32:].hex() != entry["hash"]:
            raise SystemExit(f"{name}: not the one that the manifest names")
        key = blake3(self.data[24:56], key=repository.master[:32]).digest()
        self.cipher = AESGCM(key)
        self.directory = json.loads(self.frame(number(self.data, len(self.data) - 48, 8), "Z"))

    def frame(self, offset, kind):
        length = number(self.data, offset + 1, 4)
        sealed = self.data[offset + 5 : offset + 5 + length]
        if self.data[offset] != ord(kind) or len(sealed) != length:
            raise SystemExit(f"{self.name}: no frame of kind {kind} at {offset}")
        nonce = offset.to_bytes(4, "little") + bytes(8)
        data = self.cipher.decrypt(nonce, sealed, self.name + bytes([0, ord(kind)]))
        return zstandard.decompress(data)

    def frames(self, kind):
        names = {"L": "lines", "W": "wal", "D": "data"}
        return b"".join(
            self.frame(entry["offset"], kind) for entry in self.directory if entry["kind"] == names[kind]
        )


class Repository:
    def __init__(self, folder, master):
        self.folder = folder
        with open(master, "rb") as file:
            self.master = file.read()
        with open(os.path.join(folder, "repository.json"), encoding="utf-8") as file:
            assert json.load(file)["format"] == 1, "a newer format"

    def names(self, folder):
        place = os.path.join(self.folder, folder)
        return sorted(os.listdir(place)) if os.path.isdir(place) else []


class Backup:
    def __init__(self, repository, cluster, backup):
        self.repository, self.cluster = repository, cluster
        self.directories, self.files, self.packs, self.kept = [], [], [], {}
        commit = lines(Pack(repository, f"clusters/{cluster}/backups/{backup}"))
        self.header, promised, count = commit[0]["backup"], commit[-1]["end"], 0
        for part in commit[1:-1]:
            for line in lines(self.pack(part["part"])):
                count += 1
                for what, found in line.items():
                    {"directory": self.directories, "file": self.files, "pack": self.packs}[what].append(found)
        assert count == promised, f"{count} lines of {promised}"
        self.by_id = {(pack["backup"], pack["sequence"]): pack for pack in self.packs}

    def pack(self, entry):
        name = f"clusters/{self.cluster}/packs/{entry['backup']}/{entry['sequence']:08}"
        if name not in self.kept:
            self.kept = {name: Pack(self.repository, name, entry), **dict(list(self.kept.items())[:7])}
        return self.kept[name]

    def extent(self, place, size):
        """The bytes of an extent."""
        pack, frame, _, offset = place
        piece = self.pack(self.packs[pack]).frame(frame, "M")[offset:]
        blocks, packs, at = number(piece, 0, 4), number(piece, 4, 2), 6
        named = []
        for _ in range(packs):
            named.append((piece[at : at + 21].decode(), number(piece, at + 21, 4)))
            at += 25
        identities = [piece[at + 16 * n : at + 16 * n + 16] for n in range(blocks)]
        at += 16 * blocks
        runs, at = number(piece, at, 4), at + 4
        out = bytearray()
        for _ in range(runs):
            count, pack = number(piece, at, 2), number(piece, at + 2, 2)
            frame, offset = number(piece, at + 4, 4), number(piece, at + 12, 4)
            at += 16
            length = min(count * BLOCK, size - len(out))
            if pack == 0xFFFF:
                out += bytes(length)
            else:
                raw = self.pack(self.by_id[named[pack]]).frame(frame, "B")
                out += raw[offset : offset + length]
        assert len(out) == size, f"{len(out)} bytes of {size}"
        for n, identity in enumerate(identities):
            block = bytes(out[n * BLOCK : (n + 1) * BLOCK])
            found = blake3(block, key=self.repository.master[32:]).digest()[:16] if any(block) else ZEROS
            assert found == identity, f"block {n}"
        return bytes(out)

    def restore(self, into):
        for directory in self.directories:
            os.makedirs(os.path.join(into, directory["path"]), exist_ok=True)
        for file in self.files:
            path = os.path.join(into, file["path"])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as out:
                left = file["size"]
                for place in file.get("extents", []):
                    out.write(self.extent(place, min(left, EXTENT)))
                    left -= min(left, EXTENT)
            os.chmod(path, file["mode"])
        for name in ["backup_label", "tablespace_map"]:
            if self.header.get(name):
                with open(os.path.join(into, name), "w", encoding="utf-8") as out:
                    out.write(self.header[name])


def lines(pack):
    return [json.loads(line) for line in pack.frames("L").splitlines()]


def wal(repository, cluster, into):
    os.makedirs(into, exist_ok=True)
    for timeline in repository.names(f"clusters/{cluster}/wal"):
        folder = f"clusters/{cluster}/wal/{timeline}"
        history = timeline.endswith(".history")
        for name in [""] if history else repository.names(folder):
            pack = Pack(repository, f"{folder}/{name}" if name else folder)
            kind = "D" if history or name.endswith(".backup") else "W"
            with open(os.path.join(into, name or timeline), "wb") as out:
                out.write(pack.frames(kind))


def numbers():
    master = bytes(range(64))
    key = blake3(master[32:], key=master[:32]).digest()
    frame = bytes.fromhex("28b52ffd2005290000") + b"obyra"
    assert zstandard.decompress(frame) == b"obyra"
    sealed = AESGCM(key).encrypt((56).to_bytes(4, "little") + bytes(8), frame, b"example" + bytes([0, ord("D")]))
    print(key.hex(), sealed.hex(), blake3(b"\x01" * BLOCK, key=master[32:]).digest()[:16].hex())


def main(folder, master, verb, *rest):
    repository = Repository(folder, master)
    if verb == "list":
        for cluster in repository.names("clusters"):
            for backup in repository.names(f"clusters/{cluster}/backups"):
                header = Backup(repository, cluster, backup).header
                print(cluster, backup, header["start"], header["stop"])
    elif verb == "restore":
        Backup(repository, rest[0], rest[1]).restore(rest[2])
    elif verb == "wal":
        wal(repository, rest[0], rest[1])
    else:
        numbers()


main(*sys.argv[1:])
