"""Read the animation of a glTF 2.0 file, `.glb` or `.gltf`, as positions of its skeleton's nodes."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .detection import Fact
from .json_files import as_number, parse_json
from .options import ReadingOptions
from .recording import FASTEST, Recording, SeveralMotionsError, check_values

MAX_NODES = 10_000
MAX_KEYS = 20_000_000  # values of all channels of an animation
_LARGEST = 1e8
_USUAL_FPS = 30.0  # if keys are further apart than a recording's, or uneven
_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
# Type of the components, and the value that stands for 1 if they are normalised integers.
_COMPONENTS = {5120: ("<i1", 127.0), 5121: ("u1", 255.0), 5122: ("<i2", 32767.0), 5123: ("<u2", 65535.0)}
_COMPONENTS |= {5126: ("<f4", 1.0)}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
_PATHS = {"translation": 3, "rotation": 4, "scale": 3}
_WHAT = "the file is damaged; export it again"


@dataclass
class _Node:
    """A node: its values without animation, and the channels that replace them."""

    name: str
    children: list[int]
    values: dict[str, np.ndarray]  # translation (1, 3), rotation (1, 4: x, y, z, w), scale (1, 3)
    channels: dict[str, _Channel] = field(default_factory=dict)

    def at(self, name: str, frames: np.ndarray) -> np.ndarray:
        """Return the (T or 1, width) values at times (T,)."""
        return _sample(self.channels[name], frames) if name in self.channels and len(frames) else self.values[name]


@dataclass
class _Channel:
    node: int
    path: str
    times: np.ndarray  # (K,)
    keys: np.ndarray  # (K, width), or (3 K, width) with tangents
    interpolation: str


def gltf_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read a glTF file as a recording; `options.key` names one of several animations."""
    file = _File(path)
    nodes, parents = file.nodes()
    channels = file.channels(_choose(file.get("animations"), options.key, path), len(nodes))
    frames, rate, reason = _frames(channels, path)
    wanted = file.joints(len(nodes)) or _moving(parents, {channel.node for channel in channels})
    check_values(3 * len(frames) * len(nodes), str(path))
    rest = _positions(nodes, parents, frames[:0])
    for channel in channels:
        nodes[channel.node].channels[channel.path] = channel
    positions = _positions(nodes, parents, frames)[:, wanted]
    names = tuple(nodes[number].name for number in wanted)
    fps, up = Fact(rate, "read", reason), Fact("y", "read", "glTF")
    return Recording("glTF", positions, names=names, fps=fps, up=up, rest=rest[0, wanted])


def _choose(animations: Sequence[Any], key: str | None, path: Path) -> Any:
    """Return the animation named by `key` or its number, or the only one."""
    names = [
        str(item.get("name") or number) if isinstance(item, dict) else "" for number, item in enumerate(animations)
    ]
    if not names:
        raise ValueError(f"{path}: no animation; export the file with it")
    if key is None and len(names) == 1:
        return animations[0]
    found = [number for number, name in enumerate(names) if key in (name, str(number))]
    shown = ", ".join(name[:40] for name in names[:40]) + (", ..." if len(names) > 40 else "")
    if key is None:
        message = f"{path}: {len(names)} animations; pass key=... with one of {shown}"
        raise SeveralMotionsError(message, [str(number) for number in range(len(names))])
    if not found:
        raise ValueError(f"{path}: no animation {key!r}; pass key=... with one of {shown}")
    return animations[found[0]]


class _File:
    """JSON and binary data of a file. Every value is checked, since anyone can write one."""

    def __init__(self, path: Path):
        self.path = path
        content = path.read_bytes()
        self.binary: bytes | None = None
        if content[:4] == b"glTF":
            content = self._chunks(content)
        self.content = parse_json(content, str(path))
        if not isinstance(self.content, dict):
            raise self.fail(f"expected an object, got {type(self.content).__name__}")
        self.buffers: dict[int, bytes] = {}

    def fail(self, message: str) -> ValueError:
        return ValueError(f"{self.path}: {message}; {_WHAT}")

    def _chunks(self, content: bytes) -> bytes:
        found: dict[int, bytes] = {}
        place = 12
        while place + 8 <= len(content):
            length, kind = struct.unpack_from("<II", content, place)
            if place + 8 + length > len(content):
                raise self.fail("the file is truncated")
            found.setdefault(kind, content[place + 8 : place + 8 + length])
            place += 8 + length
        if _JSON not in found:
            raise self.fail("no JSON in the file")
        self.binary = found.get(_BIN)
        return found[_JSON]

    def get(self, name: str) -> list[Any]:
        value = self.content.get(name, [])
        if not isinstance(value, list):
            raise self.fail(f"{name} is not a list")
        return value

    def item(self, name: str, number: Any) -> dict[str, Any]:
        items = self.get(name)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(items):
            raise self.fail(f"no {name}[{json.dumps(number)[:20]}]")
        if not isinstance(items[number], dict):
            raise self.fail(f"{name}[{number}] is not an object")
        return items[number]

    def _whole(self, value: Any, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise self.fail(f"{what} is {json.dumps(value)[:20]}")
        return value

    def _buffer(self, number: Any) -> bytes:
        item = self.item("buffers", number)
        if number not in self.buffers:
            self.buffers[number] = self._load(item.get("uri"))
        return self.buffers[number]

    def _load(self, uri: Any) -> bytes:
        if uri is None and self.binary is not None:
            return self.binary
        if isinstance(uri, str) and uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise self.fail(f"malformed base64 ({error})") from error
        if not isinstance(uri, str) or Path(uri).name != uri or "\\" in uri or "\0" in uri:
            raise ValueError(f"{self.path}: the buffer {str(uri)[:60]!r} is not a file beside it; export it as .glb")
        file = self.path.parent / uri
        if not file.is_file() or file.is_symlink():
            raise FileNotFoundError(f"{file}: no such file, which {self.path.name} needs; copy it there, or use .glb")
        if file.stat().st_size > 2**28:
            raise ValueError(f"{file}: more than 256 MB; export the animation without the model")
        return file.read_bytes()

    def accessor(self, number: Any) -> np.ndarray:
        """Return the (K, width) float64 values of an accessor."""
        item = self.item("accessors", number)
        view = self.item("bufferViews", item.get("bufferView"))
        kind = _COMPONENTS.get(self._whole(item.get("componentType"), "componentType"))
        width = _WIDTHS.get(str(item.get("type")))
        if kind is None or width is None or "sparse" in item:
            raise self.fail(f"accessor {number} has an unknown type")
        dtype = np.dtype(kind[0])
        count = self._whole(item.get("count"), "count")
        start = self._whole(item.get("byteOffset", 0), "byteOffset") + self._whole(
            view.get("byteOffset", 0), "byteOffset"
        )
        step = self._whole(view.get("byteStride", 0), "byteStride") or width * dtype.itemsize
        buffer = self._buffer(view.get("buffer"))
        if (
            not count
            or step < width * dtype.itemsize
            or start + (count - 1) * step + width * dtype.itemsize > len(buffer)
        ):
            raise self.fail(f"accessor {number} lies outside its buffer")
        check_values(count * width, str(self.path))
        rows = np.ndarray((count, width), dtype, buffer, start, (step, dtype.itemsize)).astype(np.float64)
        if not (np.abs(rows) <= _LARGEST).all():
            raise self.fail(f"accessor {number} contains NaN or values above {_LARGEST:g}")
        return np.maximum(rows / kind[1], -1.0) if kind[1] != 1 else rows

    def nodes(self) -> tuple[list[_Node], list[int]]:
        """Return the nodes and the parent of each, -1 for roots."""
        items = self.get("nodes")
        if not 0 < len(items) <= MAX_NODES:
            raise ValueError(f"{self.path}: got {len(items)} nodes; export a skeleton of at most {MAX_NODES:,}")
        nodes = [self._node(number) for number in range(len(items))]
        parents = [-1] * len(nodes)
        for number, node in enumerate(nodes):
            for child in node.children:
                if parents[child] >= 0 or child == number:
                    raise self.fail(f"node {child} has two parents")
                parents[child] = number
        waiting, reached = [number for number, parent in enumerate(parents) if parent < 0], 0
        while waiting:
            reached += len(waiting)
            waiting = [child for number in waiting for child in nodes[number].children]
        if reached < len(nodes):
            raise self.fail("nodes are children of each other")
        return nodes, parents

    def _node(self, number: int) -> _Node:
        item = self.item("nodes", number)
        children = item.get("children", [])
        if not isinstance(children, list):
            raise self.fail(f"the children of node {number} are not a list")
        for child in children:
            self.item("nodes", child)
        values = {
            "translation": np.zeros((1, 3)),
            "rotation": np.array([[0.0, 0.0, 0.0, 1.0]]),
            "scale": np.ones((1, 3)),
        }
        if "matrix" in item:
            values |= self._decompose(item["matrix"], number)
        for name, width in _PATHS.items():
            if name in item:
                values[name] = self._vector(item[name], width, f"{name} of node {number}")
        label = item.get("name")
        return _Node(label if isinstance(label, str) and label else f"node{number}", children, values)

    def _vector(self, value: Any, width: int, what: str) -> np.ndarray:
        numbers = (
            [as_number(part) for part in value] if isinstance(value, list) and len(value) == width else [math.nan]
        )
        vector = np.array([numbers])
        if not (np.abs(vector) <= _LARGEST).all():
            raise self.fail(f"the {what} is not {width} finite numbers")
        return vector

    def _decompose(self, value: Any, number: int) -> dict[str, np.ndarray]:
        from scipy.spatial.transform import Rotation

        matrix = self._vector(value, 16, f"matrix of node {number}").reshape(4, 4).T
        scale = np.linalg.norm(matrix[:3, :3], axis=0)
        turned = matrix[:3, :3] / np.where(scale > 0, scale, 1.0)
        if np.linalg.det(turned) < 1e-6:  # no rotation
            raise self.fail(f"the matrix of node {number} is not a rotation with scale")
        rotation = Rotation.from_matrix(turned).as_quat()
        return {"translation": matrix[None, :3, 3], "rotation": rotation[None], "scale": scale[None]}

    def joints(self, count: int) -> list[int]:
        """Return the nodes of all skins, parents first."""
        numbers: set[int] = set()
        for number in range(len(self.get("skins"))):
            joints = self.item("skins", number).get("joints", [])
            if not isinstance(joints, list):
                raise self.fail(f"the joints of skin {number} are not a list")
            numbers |= {self._whole(joint, "a joint") for joint in joints}
        if numbers and max(numbers) >= count:
            raise self.fail(f"no nodes[{max(numbers)}]")
        return sorted(numbers)

    def channels(self, animation: Any, count: int) -> list[_Channel]:
        """Return the channels of an animation that move nodes."""
        if not isinstance(animation, dict):
            raise self.fail("an animation is not an object")
        samplers, items = animation.get("samplers"), animation.get("channels")
        if not isinstance(samplers, list) or not isinstance(items, list) or len(items) > 3 * MAX_NODES:
            raise self.fail("an animation has no lists of samplers and channels")
        found, total = [], 0
        times: dict[Any, np.ndarray] = {}
        for item in items:
            target = item.get("target") if isinstance(item, dict) else None
            if not isinstance(target, dict):
                raise self.fail("a channel has no target")
            path = str(target.get("path"))
            if path not in _PATHS or "node" not in target:
                continue  # weights of meshes
            node, sampler = self._whole(target["node"], "node"), self._whole(item.get("sampler"), "sampler")
            if node >= count or sampler >= len(samplers) or not isinstance(samplers[sampler], dict):
                raise self.fail(f"no node {node} or sampler {sampler}")
            channel = self._channel(samplers[sampler], node, path, times)
            total += channel.keys.size + channel.times.size
            check_values(total, str(self.path))
            found.append(channel)
        return found

    def _channel(self, sampler: dict[str, Any], node: int, path: str, times: dict[Any, np.ndarray]) -> _Channel:
        number = self._whole(sampler.get("input"), "input")
        if number not in times:
            times[number] = self.accessor(number)[:, 0]
            if not (np.diff(times[number]) > 0).all():
                raise self.fail("the times of an animation do not increase")
        keys = self.accessor(sampler.get("output"))
        interpolation = sampler.get("interpolation", "LINEAR")
        per_key = {"LINEAR": 1, "STEP": 1, "CUBICSPLINE": 3}.get(str(interpolation))
        if per_key is None or keys.shape != (per_key * len(times[number]), _PATHS[path]):
            raise self.fail(f"the {path} of node {node} has {len(keys)} keys for {len(times[number])} times")
        return _Channel(node, path, times[number], keys, interpolation)


def _frames(channels: Sequence[_Channel], path: Path) -> tuple[np.ndarray, float, str]:
    """Return the times of the frames, their rate and where it comes from."""
    moving = [channel.times for channel in channels if len(channel.times) > 1]
    if not moving:
        raise ValueError(f"{path}: the animation moves nothing; export it with its keys")
    start, end = min(times[0] for times in moving), max(times[-1] for times in moving)
    finest = max(moving, key=len)
    step = float(np.median(np.diff(finest)))
    even = bool((np.abs(np.diff(finest) - step) < 0.05 * step).all())
    rate, reason = (1 / step, "times of the keys") if even else (_USUAL_FPS, "sampled between the keys")
    if not 10 <= rate <= FASTEST / 2:
        rate, reason = _USUAL_FPS, "sampled between the keys"
    rate = float(round(rate)) if abs(rate - round(rate)) < 1e-3 * rate else rate
    check_values(int((end - start) * rate), str(path))
    return start + np.arange(int((end - start) * rate + 1.001)) / rate, rate, reason


def _sample(channel: _Channel, frames: np.ndarray) -> np.ndarray:
    """Interpolate a channel at the times of the frames."""
    times, keys = channel.times, channel.keys
    first = np.clip(np.searchsorted(times, frames, side="right") - 1, 0, max(len(times) - 2, 0))
    second = np.minimum(first + 1, len(times) - 1)
    step = np.where(second > first, times[second] - times[first], 1.0)
    share = np.clip((frames - times[first]) / step, 0.0, 1.0)[:, None]
    if channel.interpolation == "CUBICSPLINE":
        into, value, out = keys[0::3], keys[1::3], keys[2::3]
        square, cube = share**2, share**3
        found = (2 * cube - 3 * square + 1) * value[first] + (cube - 2 * square + share) * step[:, None] * out[first]
        found += (3 * square - 2 * cube) * value[second] + (cube - square) * step[:, None] * into[second]
    elif channel.interpolation == "STEP":
        found = keys[np.where(share[:, 0] >= 1, second, first)]
    elif channel.path == "rotation":
        found = _slerp(keys[first], keys[second], share)
    else:
        found = keys[first] + share * (keys[second] - keys[first])
    return found


def _slerp(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    cosine = (start * end).sum(axis=-1, keepdims=True)
    end = np.where(cosine < 0, -end, end)
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    sine = np.sin(angle)
    close = sine < 1e-6
    sine = np.where(close, 1.0, sine)
    first = np.where(close, 1 - share, np.sin((1 - share) * angle) / sine)
    second = np.where(close, share, np.sin(share * angle) / sine)
    return first * start + second * end


def _moving(parents: Sequence[int], animated: set[int]) -> list[int]:
    """Return the nodes that move or have a moving parent; files without a skin contain no list of joints."""
    known: dict[int, bool] = {-1: False}
    for number in range(len(parents)):
        chain = []
        while number not in known:
            chain.append(number)
            known[number] = number in animated
            if known[number]:
                break
            number = parents[number]
        for node in chain:
            known[node] = known[node] or known[number]
    return [number for number in range(len(parents)) if known[number]]


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    """Return rotation matrices (T, 3, 3) of quaternions (T, 4), x, y, z, w, of any length above 0."""
    length = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    x, y, z, w = np.moveaxis(quaternions / np.where(length > 0, length, 1.0), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _positions(nodes: Sequence[_Node], parents: Sequence[int], frames: np.ndarray) -> np.ndarray:
    """Compute the (T, N, 3) positions of all nodes in the scene at times (T,), or (1, N, 3) without animation."""
    places = np.zeros((max(len(frames), 1), len(nodes), 3))
    waiting = [number for number, parent in enumerate(parents) if parent < 0]
    turns: dict[int, np.ndarray] = {}  # rotations and scales of nodes whose children wait
    left = [len(node.children) for node in nodes]
    while waiting:
        number = waiting.pop()
        node, parent = nodes[number], parents[number]
        turn = _matrices(node.at("rotation", frames)) * node.at("scale", frames)[:, None, :]
        shift = node.at("translation", frames)
        if parent >= 0:
            shift = places[:, parent] + (turns[parent] @ shift[..., None])[..., 0]
            turn = turns[parent] @ turn
            left[parent] -= 1
            if not left[parent]:
                del turns[parent]
        places[:, number] = shift
        if node.children:
            turns[number] = turn
            waiting.extend(node.children)
    return places
