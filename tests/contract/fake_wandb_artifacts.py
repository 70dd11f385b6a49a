"""The W&B server of the tests, with artifacts: collections, versions, aliases, and the files they hold."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.contract.fake_wandb import ENTITY, FakeWandb


class FakeArtifacts(FakeWandb):
    """A server that takes artifacts, too.

    Attributes:
        artifacts: by id: name, digest, metadata, description, state, index (0 for v0), manifest.
        aliases: by collection, alias to artifact id; `latest` among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, dict[str, str]] = {}

    def held(self, name: str) -> list[dict[str, Any]]:
        """The committed versions of a collection, oldest first: aliases, metadata, and files by path."""
        found = [x for x in self.artifacts.values() if x["name"] == name and x["state"] == "COMMITTED"]
        return [
            {
                "aliases": sorted(alias for alias, at in self.aliases[name].items() if at == x["id"]),
                "metadata": json.loads(x["metadata"]),
                "files": {path: self.files[_place(entry)] for path, entry in self._manifest(x).items()},
            }
            for x in sorted(found, key=lambda x: x["index"])
        ]

    def _on_createArtifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("artifactCollectionName") or asked["artifactCollectionNames"][0]
        self.aliases.setdefault(name, {})
        wanted = [each["alias"] for each in asked.get("aliases") or []]
        for known in self.artifacts.values():  # the same content is the same version
            if (known["name"], known["digest"], known["state"]) == (name, asked["digest"], "COMMITTED"):
                self.aliases[name] |= dict.fromkeys(wanted, known["id"])
                return {"artifact": self._view(known)}
        new = {
            "id": f"artifact-{len(self.artifacts)}",
            "name": name,
            "state": "PENDING",
            "wanted": wanted,
            "index": None,
        }
        new |= {key: asked.get(key) for key in ("digest", "metadata", "description", "runName")}
        self.artifacts[new["id"]] = new
        return {"artifact": self._view(new)}

    def _on_createArtifactManifest(self, asked: dict[str, Any]) -> dict[str, Any]:
        place = f"/manifests/{asked['artifactID']}/{asked['name']}"
        self.artifacts[asked["artifactID"]]["manifest"] = place
        file = {"id": place, "name": asked["name"], "uploadUrl": self.url + place, "directUrl": self.url + place}
        return {"artifactManifest": {"id": place, "file": {**file, "uploadHeaders": []}}}

    def _on_createArtifactFiles(self, asked: dict[str, Any]) -> dict[str, Any]:
        files = []
        for file in asked["artifactFiles"]:
            place = _place({"digest": file["md5"]})
            there = None if place in self.files else self.url + place
            files.append({**file, "id": place, "displayName": file["name"], "uploadUrl": there, "uploadHeaders": [],
                          "storagePath": place, "artifact": {"id": file["artifactID"]}})  # fmt: skip
        return {"files": _pages(files)}

    def _on_commitArtifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        found = self.artifacts[asked["artifactID"]]
        if found["state"] == "PENDING":
            others = [x for x in self.artifacts.values() if x["name"] == found["name"] and x["state"] == "COMMITTED"]
            found |= {"state": "COMMITTED", "index": len(others)}
            self.aliases[found["name"]] |= dict.fromkeys([*found["wanted"], "latest"], found["id"])
        return {"artifact": self._view(found)}

    def _on_artifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._view(self.artifacts[asked["id"]])

    def _on_entity(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"name": asked.get("name"), "organization": None, "user": None}

    def _on_model(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {**_project(asked.get("name")), "bucket": None}

    def _on_project(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {
            **_project(asked.get("name")),
            "artifactCollectionMembership": lambda inner: self._membership(inner["name"]),
            "artifact": lambda inner: (self._membership(inner["name"]) or {}).get("artifact"),
            "artifactType": lambda inner: {"id": "type", "name": inner.get("name")},
        }

    def _on_updateArtifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        found = self.artifacts[asked["artifactID"]]
        found |= {key: asked[key] for key in ("description", "metadata") if asked.get(key) is not None}
        return {"artifact": self._view(found)}

    def _on_addAliases(self, asked: dict[str, Any]) -> dict[str, Any]:
        for each in asked["aliases"]:
            self.aliases[each["artifactCollectionName"]][each["alias"]] = asked["artifactID"]
        return {"success": True}

    def _on_deleteAliases(self, asked: dict[str, Any]) -> dict[str, Any]:
        for each in asked["aliases"]:
            self.aliases[each["artifactCollectionName"]].pop(each["alias"], None)
        return {"success": True}

    def _membership(self, name: str) -> dict[str, Any] | None:
        collection, _, alias = name.split("/")[-1].partition(":")
        named = {f"v{x['index']}": x["id"] for x in self.artifacts.values() if x["name"] == collection}
        found = self.artifacts.get({**named, **self.aliases.get(collection, {})}.get(alias or "latest", ""))
        if found is None:
            return None
        view = self._view(found)
        place = {"id": f"member-{found['id']}", "versionIndex": found["index"], "artifact": view}
        return {"__typename": "ArtifactCollectionMembership", **place, "artifactCollection": view["artifactSequence"],
                "aliases": view["aliases"], "createdAt": _THEN}  # fmt: skip

    def _view(self, x: dict[str, Any]) -> dict[str, Any]:
        project = _project((self.runs.get(x["runName"]) or {}).get("modelName"))
        last = [y for y in self.artifacts.values() if y["name"] == x["name"] and y["index"] is not None]
        latest = max(last, key=lambda y: y["index"], default=None)
        sequence = {
            "__typename": "ArtifactSequence",
            "id": f"collection-{x['name']}",
            "name": x["name"],
            "project": project,
            "type": {"name": "model"},
            "latestArtifact": latest and {"id": latest["id"], "versionIndex": latest["index"]},
        }
        names = [alias for alias, at in self.aliases[x["name"]].items() if at == x["id"]]
        of = {key: value for key, value in sequence.items() if key != "latestArtifact"}
        manifest = self.url + x["manifest"] if x.get("manifest") else None
        return {
            "__typename": "Artifact",
            **{key: x[key] for key in ("id", "state", "digest", "metadata", "description")},
            "artifactSequence": sequence,
            "artifactType": {"name": "model"},
            "versionIndex": x["index"],
            "aliases": [{"__typename": "ArtifactAlias", "id": a, "alias": a, "artifactCollection": of} for a in names],
            "tags": [],
            "createdAt": _THEN,
            "updatedAt": _THEN,
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "size": sum(entry["size"] for entry in self._manifest(x).values()),
            "fileCount": len(self._manifest(x)),
            "commitHash": x["id"],
            "currentManifest": manifest and {"id": "m", "file": {"id": "f", "directUrl": manifest}},
            "artifactMemberships": _pages([]),
            "files": lambda _: self._files(x),
        }

    def _files(self, x: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for path, entry in self._manifest(x).items():
            there = self.url + _place(entry)
            nodes.append({"__typename": "File", "id": path, "name": path, "displayName": path, "directUrl": there,
                          "url": there, "sizeBytes": entry["size"], "md5": entry["digest"]})  # fmt: skip
        return _pages(nodes)

    def _manifest(self, x: dict[str, Any]) -> dict[str, Any]:
        contents: dict[str, Any] = json.loads(self.files.get(x.get("manifest", ""), b'{"contents": {}}'))["contents"]
        return contents


class Dying(FakeArtifacts):
    """A server that takes so many commits of artifacts, and then hears no more."""

    def __init__(self, commits: int) -> None:
        super().__init__()
        self.left = commits

    def _on_commitArtifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.left == 0:
            raise ConnectionAbortedError  # no answer: the client tries again
        self.left -= 1
        return super()._on_commitArtifact(asked)


_THEN = "2026-01-01T00:00:00Z"


def _project(name: str | None) -> dict[str, Any]:
    return {"id": "p", "internalId": "1", "name": name, "entity": {"id": "e", "name": ENTITY}}


def _place(entry: dict[str, Any]) -> str:
    return f"/blobs/{base64.b64decode(entry['digest']).hex()}"


def _pages(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"totalCount": len(nodes), "pageInfo": {"hasNextPage": False, "endCursor": None},
            "edges": [{"node": node, "cursor": str(at)} for at, node in enumerate(nodes)]}  # fmt: skip
