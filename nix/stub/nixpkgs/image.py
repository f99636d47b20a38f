"""image.py GRAPH CONFIGURATION NAME:TAG CONTENTS...: writes an image for `docker load` to standard output.

One layer holds the store paths that CONTENTS need, as Nix lists them in GRAPH; one links the contents' files into the root, as dockerTools does. Times,
owners and order are fixed: the same input gives the same bytes.
"""

import hashlib
import io
import json
import os
import sys
import tarfile


def plain(entry):
    entry.mtime = 1
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def layer(fill):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        fill(archive)
    return buffer.getvalue()


def store_paths(graph):
    store = os.environ["NIX_STORE"] + "/"
    return sorted({line for line in open(graph).read().split("\n") if line.startswith(store) and os.path.isdir(line)})


def closure(paths):
    def fill(archive):
        for path in paths:
            archive.add(path, arcname=path.lstrip("/"), filter=plain)

    return fill


def links(contents):
    def fill(archive):
        for content in contents:
            for folder, folders, files in sorted(os.walk(content)):
                folders.sort()
                inside = os.path.relpath(folder, content)
                if inside != ".":
                    entry = tarfile.TarInfo(inside)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(plain(entry))
                for name in sorted(files):
                    entry = tarfile.TarInfo(os.path.normpath(os.path.join(inside, name)))
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.path.join(folder, name)
                    archive.addfile(plain(entry))

    return fill


def main(graph, configuration, tag, contents):
    layers = [layer(closure(store_paths(graph))), layer(links(contents))]
    digests = [hashlib.sha256(data).hexdigest() for data in layers]
    config = json.load(open(configuration))
    config["rootfs"] = {"type": "layers", "diff_ids": ["sha256:" + digest for digest in digests]}
    config["history"] = [{"created": config["created"]} for _ in layers]
    encoded = json.dumps(config, sort_keys=True).encode()
    name = hashlib.sha256(encoded).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": [digest + "/layer.tar" for digest in digests]}]
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
        files = [(digest + "/layer.tar", data) for digest, data in zip(digests, layers)]
        for file, data in [*files, (name, encoded), ("manifest.json", json.dumps(manifest).encode())]:
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            out.addfile(plain(entry), io.BytesIO(data))


main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
