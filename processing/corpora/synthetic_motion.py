"""
Parametric articulated body: joint-angle curves -> positions of HumanML3D's 22 joints.

By construction, the lowest joint touches the floor (unless the curve `air` lifts it), and the feet do not skate: the
lower foot stays in place (unless the curve `free` lets explicit velocities move the root). Angles are positive for
bending forward, leaning and turning to the left, lifting a limb forward or outward, and turning a limb outward.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FPS = 20.0
NUM_JOINTS = 22

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)

# Bone vectors in metres of a body standing upright, facing Z+, arms hanging; left is X+.
OFFSETS = np.array(
    [
        [0.00, 0.00, 0.00],  # pelvis
        [0.06, -0.09, 0.00],  # left hip
        [-0.06, -0.09, 0.00],  # right hip
        [0.00, 0.12, 0.00],  # spine 1
        [0.00, -0.39, 0.00],  # left knee
        [0.00, -0.39, 0.00],  # right knee
        [0.00, 0.14, 0.00],  # spine 2
        [0.00, -0.42, 0.00],  # left ankle
        [0.00, -0.42, 0.00],  # right ankle
        [0.00, 0.06, 0.00],  # spine 3
        [0.01, -0.06, 0.12],  # left foot
        [-0.01, -0.06, 0.12],  # right foot
        [0.00, 0.22, 0.00],  # neck
        [0.07, 0.12, 0.00],  # left collar
        [-0.07, 0.12, 0.00],  # right collar
        [0.00, 0.10, 0.03],  # head
        [0.11, 0.03, 0.00],  # left shoulder
        [-0.11, 0.03, 0.00],  # right shoulder
        [0.00, -0.26, 0.00],  # left elbow
        [0.00, -0.26, 0.00],  # right elbow
        [0.00, -0.25, 0.00],  # left wrist
        [0.00, -0.25, 0.00],  # right wrist
    ],
    dtype=np.float64,
)

_LIMB = ("flex", "abd", "rot", "swing", "elbow", "hip", "hipabd", "hiprot", "knee", "toe")
CHANNELS = (
    # root: rotation of the body, height above the floor, explicit velocity (m/s) and its weight
    *("yaw", "pitch", "roll", "air", "vf", "vs", "free"),
    *("bend", "side", "twist", "nod", "shake", "tilt"),
    *(f"l_{name}" for name in _LIMB),
    *(f"r_{name}" for name in _LIMB),
)
CHANNEL = {name: index for index, name in enumerate(CHANNELS)}

# Pose channels, which can be blended between two actions; yaw accumulates, and velocities apply to single frames.
_POSE = np.array([index for name, index in CHANNEL.items() if name not in ("yaw", "air", "vf", "vs", "free")])

_NEUTRAL = np.zeros(len(CHANNELS))
for _side in "lr":
    for _name, _value in (("abd", 0.14), ("elbow", 0.25), ("hipabd", 0.05), ("hip", 0.04), ("knee", 0.08)):
        _NEUTRAL[CHANNEL[f"{_side}_{_name}"]] = _value


def _rotation_yxz(y: np.ndarray, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the rotation matrices (..., 3, 3) of `Ry(y) Rx(x) Rz(z)`."""
    cy, sy, cx, sx, cz, sz = np.cos(y), np.sin(y), np.cos(x), np.sin(x), np.cos(z), np.sin(z)
    rows = (
        (cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx),
        (cx * sz, cx * cz, -sx),
        (cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def forward_kinematics(channels: np.ndarray) -> np.ndarray:
    """
    Compute joint positions from curves.

    Args:
        channels: (T, len(CHANNELS)) angles in radians, `air` in metres, velocities in m/s.

    Returns:
        (T, 22, 3) float32 positions in metres, Y up; the root of the first frame is above the XZ origin, and the
        lowest point of the clip is on the floor.
    """
    frames = len(channels)

    def c(name: str) -> np.ndarray:
        return channels[:, CHANNEL[name]]

    zero = np.zeros(frames)
    y, x, z = (np.zeros((frames, NUM_JOINTS)) for _ in range(3))
    y[:, 0], x[:, 0], z[:, 0] = c("yaw"), c("pitch"), -c("roll")
    for spine in (3, 6, 9):
        y[:, spine], x[:, spine], z[:, spine] = c("twist") / 3, c("bend") / 3, -c("side") / 3
    y[:, 12], x[:, 12], z[:, 12] = c("shake"), c("nod"), -c("tilt")
    for side, sign, hip, knee, ankle, shoulder, elbow in (("l", 1, 1, 4, 7, 16, 18), ("r", -1, 2, 5, 8, 17, 19)):

        def s(name: str, side: str = side) -> np.ndarray:
            return c(f"{side}_{name}")

        y[:, hip], x[:, hip], z[:, hip] = sign * s("hiprot"), -s("hip"), sign * s("hipabd")
        x[:, knee] = s("knee")
        # The ankle keeps the sole level within its range.
        x[:, ankle] = np.clip(s("hip") - s("knee") - c("pitch"), -0.6, 0.6) + s("toe")
        y[:, shoulder], x[:, shoulder], z[:, shoulder] = sign * s("swing"), -s("flex"), sign * s("abd")
        x[:, elbow] = -s("elbow")
    local = _rotation_yxz(y, x, z)
    for side, sign, shoulder in (("l", 1, 16), ("r", -1, 17)):
        local[:, shoulder] = local[:, shoulder] @ _rotation_yxz(sign * c(f"{side}_rot"), zero, zero)

    rotations = np.empty((frames, NUM_JOINTS, 3, 3))
    positions = np.zeros((frames, NUM_JOINTS, 3))
    rotations[:, 0] = local[:, 0]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        rotations[:, joint] = rotations[:, parent] @ local[:, joint]
        positions[:, joint] = positions[:, parent] + rotations[:, parent] @ OFFSETS[joint]

    positions[..., 1] += (c("air") - positions[..., 1].min(axis=1))[:, None]

    # The lower foot is planted: the root moves opposite to the foot's motion relative to the root.
    feet = positions[:, [10, 11]]
    lift = feet[1:, :, 1] + feet[:-1, :, 1]
    left_holds = 1.0 / (1.0 + np.exp(np.clip((lift[:, 0] - lift[:, 1]) / 0.01, -50, 50)))
    moved = np.diff(feet[..., [0, 2]], axis=0)
    held = -(left_holds[:, None] * moved[:, 0] + (1 - left_holds)[:, None] * moved[:, 1])
    forward = np.stack([np.sin(c("yaw")), np.cos(c("yaw"))], axis=-1)
    sideways = np.stack([np.cos(c("yaw")), -np.sin(c("yaw"))], axis=-1)
    wanted = ((c("vf") / FPS)[:, None] * forward + (c("vs") / FPS)[:, None] * sideways)[1:]
    free = c("free")[1:, None]
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(free * wanted + (1 - free) * held, axis=0)])
    positions[..., [0, 2]] += path[:, None] - positions[:1, :1, [0, 2]]
    positions[..., 1] -= positions[..., 1].min()
    return positions.astype(np.float32)


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def _bump(x: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Return a smooth pulse: 0 at `start`, 1 in the middle, 0 at `stop`."""
    inside = np.clip((x - start) / (stop - start), 0.0, 1.0)
    return np.sin(np.pi * inside) ** 2


class Curves:
    """
    Curves of one action during its animation.

    Args:
        frames: length at 20 frames per second.
        side: `left`, `right`, `both` or empty.
        direction: `forward`, `backward`, `left`, `right`, `up`, `clockwise`, `counterclockwise` or empty.
        count: number of repetitions.
        pace: 1 is natural, larger is faster.
        size: individual scale of the movement, about 1.
    """

    def __init__(self, frames: int, side: str, direction: str, count: int, pace: float, size: float):
        self.sheet = np.tile(_NEUTRAL, (frames, 1))
        self.frames = frames
        self.direction = direction
        self.count = count
        self.pace = pace
        self.size = size
        self.seconds = np.arange(frames) / FPS
        self.u = np.linspace(0.0, 1.0, frames)
        # Repetitions leave a short rest at both ends.
        self.v = np.clip((self.u - 0.05) / 0.9, 0.0, 1.0)
        self.limbs = {"left": "l", "right": "r"}.get(side, "lr")
        self.limb = self.limbs[0]
        self.other = "r" if self.limb == "l" else "l"
        self.sign = -1.0 if "right" in (side, direction) or direction == "clockwise" else 1.0
        self.way = -1.0 if direction == "backward" else 1.0

    def set(self, name: str, values: np.ndarray | float, weight: np.ndarray | float = 1.0) -> None:
        """Blend channel `name` towards `values` by `weight` in [0, 1]."""
        column = self.sheet[:, CHANNEL[name]]
        column += weight * (values - column)

    def add(self, name: str, values: np.ndarray | float) -> None:
        self.sheet[:, CHANNEL[name]] += values

    def each(self, names: str, weight: np.ndarray | float = 1.0, limbs: str | None = None, **values) -> None:
        """Blend channels of the chosen limbs, for example `each("", w, flex=1.2, elbow=0)`."""
        for limb in self.limbs if limbs is None else limbs:
            for name, value in values.items():
                self.set(f"{limb}_{name}", value, weight)

    def hold(self, rise: float = 0.25, fall: float = 0.25) -> np.ndarray:
        """Return weights that enter a pose, hold it and return; `fall=0` holds it to the end."""
        up = _smoothstep(self.u / rise)
        return up if fall == 0 else np.minimum(up, _smoothstep((1 - self.u) / fall))

    def pulses(self, sharpness: float = 1.0) -> np.ndarray:
        """Return `count` pulses from 0 to 1 and back."""
        return np.abs(np.sin(np.pi * self.count * self.v)) ** (2 * sharpness)

    def phase(self) -> np.ndarray:
        """Return the progress within the current repetition, 0 to 1."""
        return np.where(self.v >= 1.0, 1.0, (self.v * self.count) % 1.0)

    def beat(self, hertz: float) -> np.ndarray:
        """Return the phase angle (radians) of a rhythm that follows the pace."""
        return 2 * np.pi * hertz * self.pace * self.seconds


Animation = Callable[[Curves], None]


def _gait(k: Curves, hertz: float, stride: float, knee: float, arms: float, elbow: float = 0.3) -> np.ndarray:
    """Swing legs and arms in opposition; return the envelope of the movement."""
    env = k.hold(0.12, 0.12)
    angle = k.beat(hertz)
    swing, lift = np.sin(angle * k.way), np.clip(np.cos(angle), 0, 1)
    other_lift = np.clip(-np.cos(angle), 0, 1)
    for limb, sign, raised in (("l", 1, lift), ("r", -1, other_lift)):
        k.set(f"{limb}_hip", stride * k.size * sign * swing + 0.4 * knee * raised, env)
        k.set(f"{limb}_knee", 0.12 + knee * k.size * raised, env)
        k.set(f"{limb}_flex", -arms * k.size * sign * swing, env)
        k.set(f"{limb}_elbow", elbow, env)
    k.add("twist", -0.12 * env * swing)
    return env


def walk(k: Curves) -> None:
    _gait(k, 1.0, 0.42 * k.pace**0.3, 0.8, 0.45)


def step(k: Curves) -> None:
    """Take exactly `count` steps of half a gait cycle each."""
    env = k.hold(0.1, 0.1)
    angle = np.pi * k.count * k.v
    swing, lift = np.sin(angle - np.pi / 2) * k.way, np.sin(angle)
    ends = _smoothstep(np.minimum(k.v, 1 - k.v) * 2 * k.count)
    for limb, sign in (("l", 1), ("r", -1)):
        raised = np.clip(sign * lift, 0, 1)
        k.set(f"{limb}_hip", 0.5 * k.size * sign * swing * ends + 0.4 * raised, env)
        k.set(f"{limb}_knee", 0.1 + 0.9 * raised, env)
        k.set(f"{limb}_flex", -0.3 * sign * swing * ends, env)


def run(k: Curves) -> None:
    env = _gait(k, 1.5, 0.75, 1.5, 0.9, 1.6)
    k.set("bend", 0.3, env)
    k.add("air", 0.06 * env * np.sin(k.beat(1.5)) ** 2)


def jog_in_place(k: Curves) -> None:
    env = k.hold(0.12, 0.12)
    angle = k.beat(1.5)
    for limb, sign in (("l", 1), ("r", -1)):
        raised = np.clip(sign * np.sin(angle), 0, 1)
        k.set(f"{limb}_hip", 0.5 * raised, env)
        k.set(f"{limb}_knee", 0.1 + 1.5 * k.size * raised, env)
        k.set(f"{limb}_flex", -0.7 * sign * np.sin(angle), env)
        k.set(f"{limb}_elbow", 1.6, env)
    k.add("air", 0.04 * env * np.sin(angle) ** 2)


def march(k: Curves) -> None:
    env = k.hold(0.12, 0.12)
    angle = k.beat(0.9)
    for limb, sign in (("l", 1), ("r", -1)):
        raised = np.clip(sign * np.sin(angle), 0, 1)
        k.set(f"{limb}_hip", 1.5 * k.size * raised, env)
        k.set(f"{limb}_knee", 0.08 + 1.6 * k.size * raised, env)
        k.set(f"{limb}_flex", -1.0 * sign * np.sin(angle), env)
        k.set(f"{limb}_elbow", 0.2, env)


def sneak(k: Curves) -> None:
    env = _gait(k, 0.7, 0.4, 0.9, 0.1, 1.5)
    for limb in "lr":
        k.add(f"{limb}_hip", 0.75 * env)
        k.add(f"{limb}_knee", 0.85 * env)
        k.set(f"{limb}_flex", 0.9, 0.9 * env)
    k.set("bend", 0.7, env)


def sidestep(k: Curves) -> None:
    env = k.hold(0.12, 0.12)
    angle = k.beat(0.9)
    wide = 0.5 + 0.5 * np.sin(angle)
    lift = np.cos(angle)
    lead, follow = ("l", "r") if k.sign > 0 else ("r", "l")
    for limb, raised in ((lead, np.clip(lift, 0, 1)), (follow, np.clip(-lift, 0, 1))):
        k.set(f"{limb}_hipabd", 0.45 * k.size * wide, env)
        k.set(f"{limb}_hip", 0.1 + 0.35 * raised, env)
        k.set(f"{limb}_knee", 0.15 + 0.7 * raised, env)
        k.set(f"{limb}_abd", 0.35, env)
        k.set(f"{limb}_elbow", 0.8, env)


def circle(k: Curves) -> None:
    walk(k)
    k.add("yaw", k.sign * np.radians(330) * k.u)


def _turn(k: Curves, degrees: float) -> None:
    turned = _smoothstep((k.u - 0.1) / 0.8)
    k.add("yaw", k.sign * np.radians(degrees) * turned)
    env = k.hold(0.15, 0.15)
    angle = k.beat(1.3)
    for limb, sign in (("l", 1), ("r", -1)):
        raised = np.clip(sign * k.sign * np.sin(angle), 0, 1) * env
        k.add(f"{limb}_hip", 0.5 * raised)
        k.add(f"{limb}_knee", 0.9 * raised)
    k.add("shake", 0.5 * k.sign * _bump(k.u, 0.0, 0.6))
    k.add("twist", 0.3 * k.sign * _bump(k.u, 0.0, 0.7))


def quarter_turn(k: Curves) -> None:
    _turn(k, 90)


def half_turn(k: Curves) -> None:
    _turn(k, 180)


def spin(k: Curves) -> None:
    _turn(k, 360)
    k.each("", k.hold(0.2, 0.2), limbs="lr", abd=1.0)


def jump(k: Curves) -> None:
    q = k.phase()
    crouch = _bump(q, 0.0, 0.45) + 0.7 * _bump(q, 0.7, 1.0)
    flight = np.clip((q - 0.36) / 0.34, 0, 1)
    air = 4 * flight * (1 - flight)
    for limb in "lr":
        k.add(f"{limb}_hip", 0.9 * crouch + 0.3 * air)
        k.add(f"{limb}_knee", 1.5 * crouch + 0.5 * air)
        k.add(f"{limb}_toe", 0.6 * air)
        k.set(f"{limb}_flex", -0.7 * _bump(q, 0, 0.4) + (2.6 if k.direction == "up" else 1.5) * _bump(q, 0.25, 0.85))
    k.add("bend", 0.6 * crouch)
    k.add("air", (0.4 if k.direction == "up" else 0.2) * k.size * air)
    in_air = (air > 0).astype(float)
    speed = 1.1 * k.size / max(0.34 * 0.9 * k.frames / FPS / k.count, 0.2)
    k.set("free", in_air)
    if k.direction in ("forward", "backward"):
        k.set("vf", 0.6 * k.way * speed * in_air)
    elif k.direction in ("left", "right"):
        k.set("vs", 0.6 * k.sign * speed * in_air)
        k.add("roll", 0.2 * k.sign * air)


def hop(k: Curves) -> None:
    env = k.hold(0.15, 0.15)
    q = k.phase()
    flight = np.clip((q - 0.35) / 0.4, 0, 1)
    air = 4 * flight * (1 - flight)
    crouch = _bump(q, 0.0, 0.5) + 0.5 * _bump(q, 0.7, 1.0)
    k.set(f"{k.other}_hip", 0.7, env)
    k.set(f"{k.other}_knee", 1.9, env)
    k.add(f"{k.limb}_hip", 0.5 * crouch)
    k.add(f"{k.limb}_knee", 0.9 * crouch)
    k.each("", env, limbs="lr", abd=0.8, elbow=0.9)
    k.add("air", 0.18 * k.size * air)
    k.set("free", (air > 0).astype(float))
    k.set("vf", 0.5 * (air > 0))


def crawl(k: Curves) -> None:
    env = k.hold(0.2, 0.2)
    swing = np.sin(k.beat(0.8))
    k.set("pitch", 1.35, env)
    k.set("nod", -0.5, env)
    for limb, sign in (("l", 1), ("r", -1)):
        k.set(f"{limb}_hip", 1.4 + 0.35 * sign * swing, env)
        k.set(f"{limb}_knee", 1.5, env)
        k.set(f"{limb}_toe", 0.9, env)
        k.set(f"{limb}_flex", 1.4 - 0.4 * sign * swing, env)
        k.set(f"{limb}_elbow", 0.1, env)
        k.set(f"{limb}_abd", 0.1, env)
    k.set("free", 1.0)
    k.set("vf", 0.55 * k.way * k.pace * (env > 0.9))


def kick(k: Curves) -> None:
    leg, other = k.limb, k.other
    up, ready = k.pulses(1.5), _bump(k.phase(), 0.0, 0.55)
    if k.direction == "backward":
        k.add(f"{leg}_hip", -1.0 * k.size * up)
        k.add(f"{leg}_knee", 0.5 * up)
        k.add("pitch", 0.45 * up)
        k.add(f"{other}_hip", 0.45 * up)
    elif k.direction == "sideways":
        k.add(f"{leg}_hipabd", 1.3 * k.size * up)
        k.add(f"{leg}_knee", 0.6 * ready)
        k.add("roll", (-0.35 if leg == "l" else 0.35) * up)
        k.add(f"{other}_hipabd", -0.3 * up)
    else:
        k.add(f"{leg}_hip", 1.6 * k.size * up)
        k.add(f"{leg}_knee", 1.3 * ready * (1 - up))
        k.add("bend", -0.2 * up)
    k.each("", k.hold(), limbs="lr", abd=0.5, elbow=0.9)


def knee_raise(k: Curves) -> None:
    up = k.pulses()
    for limb in k.limb:
        k.add(f"{limb}_hip", 1.8 * k.size * up)
        k.add(f"{limb}_knee", 1.9 * k.size * up)
    k.each("", up, limbs="lr", flex=0.5, elbow=1.2)


def leg_swing(k: Curves) -> None:
    swing = np.sin(2 * np.pi * k.count * k.v)
    k.add(f"{k.limb}_hip", 0.9 * k.size * swing)
    k.each("", k.hold(), limbs="lr", abd=1.2, elbow=0.1)


def squat(k: Curves) -> None:
    down = k.pulses()
    for limb in "lr":
        k.add(f"{limb}_hip", 1.8 * k.size * down)
        k.add(f"{limb}_knee", 2.0 * k.size * down)
        k.add(f"{limb}_hipabd", 0.2 * down)
    k.add("bend", 0.6 * down)
    k.each("", down, limbs="lr", flex=1.5, elbow=0.1)


def lunge(k: Curves) -> None:
    down = k.pulses(0.7)
    front, back = (k.limb, k.other) if k.way > 0 else (k.other, k.limb)
    k.set(f"{front}_hip", 1.25 * k.size, down)
    k.set(f"{front}_knee", 1.35 * k.size, down)
    k.set(f"{back}_hip", -0.45, down)
    k.set(f"{back}_knee", 1.0, down)
    k.set(f"{back}_toe", 0.6, down)
    k.each("", k.hold(), limbs="lr", abd=0.6, elbow=1.7)
    # The foot that does not step is planted.
    k.set("free", 1.0)
    k.set("vf", np.gradient(0.45 * k.way * down) * FPS)


def kneel(k: Curves) -> None:
    down = k.hold(0.45, 0)
    k.set(f"{k.limb}_hip", 0.0, down)
    k.set(f"{k.limb}_knee", 1.6, down)
    k.set(f"{k.limb}_toe", 0.9, down)
    k.set(f"{k.other}_hip", 1.5, down)
    k.set(f"{k.other}_knee", 1.5, down)
    k.each("", down, limbs=k.other, flex=0.9, elbow=0.6)
    k.set("free", 1.0)


def sit(k: Curves) -> None:
    down = k.hold(0.5, 0)
    for limb in "lr":
        k.set(f"{limb}_hip", 1.55, down)
        k.set(f"{limb}_knee", 1.5, down)
        k.set(f"{limb}_flex", 0.6, down)
        k.set(f"{limb}_elbow", 0.8, down)
    k.add("bend", 0.7 * _bump(k.u, 0.05, 0.55))


def lie(k: Curves) -> None:
    down = k.hold(0.7, 0)
    through = _bump(k.u, 0.05, 0.75)
    k.set("pitch", -1.5, down)
    for limb in "lr":
        k.add(f"{limb}_hip", 1.3 * through)
        k.add(f"{limb}_knee", 1.6 * through)
        k.set(f"{limb}_abd", 0.5, down)
    k.add("bend", 0.5 * through)
    k.set("free", 1.0)
    k.set("vf", -0.6 * through)


def stomp(k: Curves) -> None:
    q = k.phase()
    up = np.where(q < 0.6, _smoothstep(q / 0.6), 1 - _smoothstep((q - 0.6) / 0.15)) * (k.v < 1)
    k.add(f"{k.limb}_hip", 0.9 * k.size * up)
    k.add(f"{k.limb}_knee", 1.3 * k.size * up)
    k.add("bend", 0.35 * _bump(q, 0.55, 1.0))
    k.each("", k.hold(), limbs="lr", abd=0.35, elbow=1.0)


def balance(k: Curves) -> None:
    up = k.hold(0.2, 0.2)
    k.set(f"{k.other}_hip", 1.0 * k.size, up)
    k.set(f"{k.other}_knee", 1.7, up)
    k.each("", up, limbs="lr", abd=1.5, elbow=0.05)
    k.add("roll", 0.06 * up * np.sin(k.beat(0.9)))


def jumping_jacks(k: Curves) -> None:
    open_ = k.pulses()
    for limb in "lr":
        k.add(f"{limb}_hipabd", 0.5 * k.size * open_)
        k.set(f"{limb}_abd", 2.8, open_)
        k.set(f"{limb}_elbow", 0.1, open_)
    k.add("air", 0.1 * np.sin(2 * np.pi * k.count * k.v) ** 2)
    k.set("free", 1.0)


def wave(k: Curves) -> None:
    up = k.hold(0.2, 0.2)
    k.each("", up, abd=1.5, flex=0.2, rot=1.5, elbow=1.2 + 0.55 * k.size * np.sin(k.beat(1.8)))


def raise_arm(k: Curves) -> None:
    up = k.hold(0.35, 0.3)
    if k.direction == "sideways":
        k.each("", up, abd=1.55 * k.size, elbow=0.05)
    elif k.direction == "forward":
        k.each("", up, flex=1.55 * k.size, abd=0.05, elbow=0.05)
    else:
        k.each("", up, flex=3.0, abd=0.05, elbow=0.05)


def point(k: Curves) -> None:
    up = k.hold(0.25, 0.25)
    outward = k.sign if k.direction in ("left", "right") else 0.0
    mine = 1.0 if k.limb == "l" else -1.0
    if k.direction == "up":
        k.each("", up, flex=2.5, abd=0.05, elbow=0.05)
        k.set("nod", -0.5, up)
    elif outward:
        k.each("", up, flex=1.5, swing=1.4 if outward == mine else -1.2, abd=0.05, elbow=0.05)
        k.set("shake", 0.8 * outward, up)
        k.set("twist", 0.4 * outward, up)
    else:
        k.each("", up, flex=1.5, abd=0.05, elbow=0.05)
        k.set("bend", 0.25, up)
    k.each("", up, limbs=k.other, abd=0.5, rot=-0.9, elbow=1.5)


def punch(k: Curves) -> None:
    guard, out = k.hold(0.2, 0.2), k.pulses(2.0)
    k.each("", guard, limbs="lr", flex=0.5, elbow=2.3, abd=0.25)
    k.each("", out, limbs=k.limb, flex=2.7 if k.direction == "up" else 1.5, elbow=0.1, abd=0.1)
    k.add("twist", (-0.5 if k.limb == "l" else 0.5) * k.size * out)
    k.set(f"{k.other}_hip", 0.3, guard)
    k.set(f"{k.limb}_hip", -0.2, guard)


def box(k: Curves) -> None:
    guard = k.hold(0.15, 0.15)
    angle = k.beat(1.2)
    k.each("", guard, limbs="lr", flex=0.5, elbow=2.3, abd=0.25)
    for limb, sign in (("l", 1), ("r", -1)):
        out = np.clip(sign * np.sin(angle), 0, 1) ** 2 * guard
        k.each("", out, limbs=limb, flex=1.5, elbow=0.1, abd=0.1)
        k.add("twist", -0.4 * sign * out)
        k.add(f"{limb}_knee", 0.25 * guard)
        k.add(f"{limb}_hip", 0.2 * guard)


def throw(k: Curves) -> None:
    back, fling = _bump(k.u, 0.05, 0.6), _bump(k.u, 0.4, 0.9)
    limb, sign = k.limb, (-1.0 if k.limb == "l" else 1.0)
    k.each("", back, limbs=limb, abd=1.5, rot=1.8, elbow=1.8, flex=0.0)
    k.each("", fling, limbs=limb, flex=1.6, abd=0.3, rot=0.0, elbow=0.2)
    k.each("", back, limbs=k.other, flex=1.2, elbow=0.3)
    k.add("twist", sign * (-0.7 * back + 0.8 * fling))
    k.add("bend", -0.2 * back + 0.5 * fling)
    k.add(f"{k.other}_hip", 0.4 * np.maximum(back, fling))


def clap(k: Curves) -> None:
    up, apart = k.hold(0.2, 0.2), np.cos(2 * np.pi * k.count * k.v) * 0.5 + 0.5
    for limb in "lr":
        k.set(f"{limb}_flex", 1.1, up)
        k.set(f"{limb}_elbow", 0.7, up)
        k.set(f"{limb}_abd", 0.1, up)
        k.set(f"{limb}_swing", -0.42 + 0.75 * k.size * apart, up)


def circle_arms(k: Curves) -> None:
    env = k.hold(0.1, 0.1)
    angle = np.mod(2 * np.pi * k.count * k.v * k.way, 2 * np.pi)
    k.each("", limbs=k.limbs, flex=angle)
    k.each("", env, abd=0.25, elbow=0.05)


def flap(k: Curves) -> None:
    env = k.hold(0.12, 0.12)
    k.each("", env, limbs="lr", abd=1.2 + 0.6 * k.size * np.sin(k.beat(1.2)), elbow=0.35)
    k.add("bend", 0.15 * env)
    for limb in "lr":
        bounce = 0.2 * env * (0.5 - 0.5 * np.sin(k.beat(1.2)))
        k.add(f"{limb}_hip", bounce)
        k.add(f"{limb}_knee", 2 * bounce)


def push(k: Curves) -> None:
    ready, out = k.hold(0.2, 0.2), k.pulses()
    for limb in "lr":
        k.set(f"{limb}_flex", -0.2 + 1.6 * out, ready)
        k.set(f"{limb}_elbow", 2.1 - 2.0 * out, ready)
        k.set(f"{limb}_abd", 0.25, ready)
    k.add("bend", 0.4 * out * k.size)
    k.set("l_hip", 0.55, ready)
    k.set("l_knee", 0.5, ready)
    k.set("r_hip", -0.3, ready)


def pull(k: Curves) -> None:
    ready, back = k.hold(0.2, 0.2), k.pulses()
    for limb in "lr":
        k.set(f"{limb}_flex", 1.4 - 2.0 * back, ready)
        k.set(f"{limb}_elbow", 0.1 + 2.0 * back, ready)
        k.set(f"{limb}_hip", 0.5, ready)
        k.set(f"{limb}_knee", 0.8, ready)
    k.add("bend", 0.3 * ready - 0.8 * back * k.size)


def pick_up(k: Curves) -> None:
    down = _bump(k.u, 0.02, 0.85)
    carry = _smoothstep((k.u - 0.5) / 0.3) * _smoothstep((1 - k.u) / 0.12)
    for limb in "lr":
        k.add(f"{limb}_hip", 1.5 * down)
        k.add(f"{limb}_knee", 1.5 * down)
    k.add("bend", 1.2 * down)
    k.each("", down, flex=1.3, elbow=0.1)
    k.each("", carry, flex=0.4, elbow=1.6)


def drink(k: Curves) -> None:
    up = k.hold(0.3, 0.3)
    k.each("", up, limbs=k.limb, flex=1.1, elbow=2.2, rot=-0.35, abd=0.2)
    k.set("nod", -0.45, up)


def salute(k: Curves) -> None:
    up = k.hold(0.2, 0.2)
    k.each("", up, limbs=k.limb, flex=0.3, abd=1.5, elbow=2.35, rot=0.75)
    k.each("", up, limbs=k.other, abd=0.0, elbow=0.0)


def scratch(k: Curves) -> None:
    up = k.hold(0.2, 0.2)
    k.each("", up, limbs=k.limb, flex=0.5, abd=2.1, elbow=2.3 + 0.25 * np.sin(k.beat(2.5)), rot=0.5)
    k.set("tilt", 0.35 * (1 if k.limb == "l" else -1), up)


def bow(k: Curves) -> None:
    down = k.pulses()
    k.add("pitch", 0.7 * k.size * down)
    k.add("bend", 0.5 * k.size * down)
    for limb in "lr":
        k.add(f"{limb}_hip", 0.7 * k.size * down)
        k.set(f"{limb}_elbow", 0.0, k.hold())


def touch_toes(k: Curves) -> None:
    down = k.pulses()
    k.add("pitch", 1.1 * down)
    k.add("bend", 1.2 * k.size * down)
    for limb in "lr":
        k.add(f"{limb}_hip", 1.1 * down)
        k.set(f"{limb}_flex", 1.9, down)
        k.set(f"{limb}_elbow", 0.0, down)


def cross_arms(k: Curves) -> None:
    k.each("", k.hold(0.25, 0.25), limbs="lr", flex=0.75, abd=0.15, rot=-1.2, elbow=1.85)


def hands_on_hips(k: Curves) -> None:
    k.each("", k.hold(0.25, 0.25), limbs="lr", abd=0.8, rot=-0.9, elbow=1.7, flex=-0.1)


def chop(k: Curves) -> None:
    q = k.phase()
    up = np.where(q < 0.6, _smoothstep(q / 0.6), 1 - _smoothstep((q - 0.6) / 0.2)) * (k.v < 1)
    k.set(f"{k.limb}_flex", 0.7 + 1.9 * k.size * up, k.hold(0.1, 0.1))
    k.set(f"{k.limb}_elbow", 0.5 + 1.0 * up, k.hold(0.1, 0.1))
    k.add("bend", 0.35 * _bump(q, 0.55, 1.0))


def swing_bat(k: Curves) -> None:
    back, through = _bump(k.u, 0.05, 0.6), _smoothstep((k.u - 0.4) / 0.25) * _smoothstep((1 - k.u) / 0.2)
    ready = k.hold(0.15, 0.2)
    for limb in "lr":
        mine = 1.0 if limb == "l" else -1.0
        k.set(f"{limb}_flex", 1.1, ready)
        k.set(f"{limb}_elbow", 0.5, ready)
        k.set(f"{limb}_swing", mine * k.sign * (-0.7 * back + 0.7 * through) - 0.3, ready)
        k.set(f"{limb}_knee", 0.4, ready)
        k.set(f"{limb}_hip", 0.3, ready)
    k.add("twist", k.sign * k.size * (-0.9 * back + 1.1 * through))
    k.add("bend", 0.35 * ready)


def swim(k: Curves) -> None:
    """Swim front crawl in complete strokes, with the right arm half a stroke behind."""
    env = k.hold(0.15, 0.15)
    angle = 2 * np.pi * max(round(0.75 * k.pace * k.frames / FPS), 1) * k.v
    behind = np.pi * (_smoothstep(k.u / 0.2) + _smoothstep((k.u - 0.8) / 0.2))
    k.set("l_flex", np.mod(angle, 2 * np.pi))
    k.set("r_flex", np.mod(angle + behind, 2 * np.pi))
    k.set("pitch", 0.5, env)
    k.set("bend", 0.5, env)
    for limb in "lr":
        k.add(f"{limb}_hip", 0.5 * env)
    k.add("twist", 0.35 * env * np.sin(angle))


def lean(k: Curves) -> None:
    over = k.pulses(0.7)
    k.add("side", 0.9 * k.sign * k.size * over)
    k.add("roll", 0.15 * k.sign * over)
    limb = "r" if k.sign > 0 else "l"
    k.each("", over, limbs=limb, abd=2.7, elbow=0.3)


def twist(k: Curves) -> None:
    over = k.pulses(0.7)
    k.add("twist", 1.2 * k.sign * k.size * over)
    k.add("shake", 0.5 * k.sign * over)
    k.each("", k.hold(), limbs="lr", abd=1.4, elbow=1.8)


def nod(k: Curves) -> None:
    k.add("nod", 0.9 * k.size * k.pulses())
    k.add("bend", 0.25 * k.pulses())


def shake_head(k: Curves) -> None:
    k.add("shake", 1.1 * k.size * np.sin(2 * np.pi * k.count * k.v))
    k.add("twist", 0.3 * np.sin(2 * np.pi * k.count * k.v))


def dance(k: Curves) -> None:
    env = k.hold(0.12, 0.12)
    angle = k.beat(0.9)
    sway = np.sin(angle)
    k.add("roll", 0.22 * k.size * env * sway)
    k.add("side", -0.45 * k.size * env * sway)
    k.add("twist", 0.35 * env * np.sin(angle + 0.7))
    for limb, sign in (("l", 1), ("r", -1)):
        k.set(f"{limb}_flex", 0.6 + 0.5 * np.sin(2 * angle), env)
        k.set(f"{limb}_elbow", 1.7, env)
        k.set(f"{limb}_abd", 0.6 + 0.3 * sign * sway, env)
        k.add(f"{limb}_knee", 0.5 * env * np.clip(sign * sway, 0, 1))
        k.add(f"{limb}_hip", 0.3 * env * np.clip(sign * sway, 0, 1))


def stretch(k: Curves) -> None:
    up = k.hold(0.4, 0.3)
    k.each("", up, limbs="lr", abd=2.8, elbow=0.4)
    for limb in "lr":
        k.add(f"{limb}_toe", 0.6 * up)
    k.add("bend", -0.35 * up)
    k.add("nod", -0.4 * up)


def wipe(k: Curves) -> None:
    env = k.hold(0.15, 0.15)
    angle = k.beat(1.0)
    k.set(f"{k.limb}_flex", 1.3 + 0.4 * k.size * np.sin(angle), env)
    k.set(f"{k.limb}_swing", 0.1 + 0.5 * k.size * np.cos(angle), env)
    k.set(f"{k.limb}_elbow", 0.6, env)
    k.set(f"{k.limb}_abd", 0.0, env)


def stir(k: Curves) -> None:
    env = k.hold(0.15, 0.15)
    angle = k.beat(1.4)
    k.set(f"{k.limb}_flex", 0.35 + 0.25 * np.sin(angle), env)
    k.set(f"{k.limb}_swing", -0.1 + 0.4 * np.cos(angle), env)
    k.set(f"{k.limb}_elbow", 1.3 + 0.2 * np.cos(angle), env)
    k.each("", env, limbs=k.other, flex=0.4, elbow=1.5, swing=-0.3)
    k.add("bend", 0.3 * env)
    k.add("nod", 0.35 * env)


def guitar(k: Curves) -> None:
    env = k.hold(0.15, 0.15)
    k.each("", env, limbs=k.other, flex=0.5, abd=0.5, elbow=1.5, rot=0.2)
    k.set(f"{k.limb}_flex", 0.25 + 0.2 * np.sin(k.beat(2.2)), env)
    k.set(f"{k.limb}_rot", -1.1, env)
    k.set(f"{k.limb}_elbow", 1.55 + 0.3 * np.sin(k.beat(2.2)), env)
    k.add("nod", 0.25 * env)


def row(k: Curves) -> None:
    """Sit and row."""
    sit, back = k.hold(0.2, 0.2), k.pulses()
    for limb in "lr":
        k.set(f"{limb}_hip", 1.75, sit)
        k.set(f"{limb}_knee", 1.2 - 0.5 * back, sit)
        k.set(f"{limb}_flex", 1.6 - 1.7 * back, sit)
        k.set(f"{limb}_elbow", 0.1 + 1.8 * back, sit)
    k.add("bend", 0.7 * sit - 0.9 * back)
    k.set("free", 1.0)


def stand(k: Curves) -> None:
    k.each("", k.hold(0.2, 0.2), limbs="lr", abd=0.05, elbow=0.05)


def stagger(k: Curves) -> None:
    env = _gait(k, 0.9, 0.3, 0.6, 0.2)
    drift = np.sin(k.beat(0.55))
    k.add("roll", 0.32 * k.size * env * drift)
    k.add("side", -0.3 * env * drift)
    k.add("bend", 0.35 * env)
    k.add("yaw", 0.35 * env * np.sin(k.beat(0.4)))
    k.each("", env, limbs="lr", abd=0.9)


@dataclass(frozen=True)
class Segment:
    """Action to animate; see [`Curves`] for the fields."""

    animate: Animation
    frames: int
    side: str = ""
    direction: str = ""
    count: int = 1
    pace: float = 1.0


def render(segments: list[Segment], rng: np.random.Generator, min_frames: int = 48) -> np.ndarray:
    """
    Animate actions in sequence as one clip.

    Args:
        segments: actions.
        rng: random generator for individual style: size of movements, posture, sway.
        min_frames: shorter clips are extended with their last pose.

    Returns:
        (T, 22, 3) float32 positions in metres at 20 frames per second.
    """
    sheets: list[np.ndarray] = []
    for segment in segments:
        size = rng.uniform(0.88, 1.12)
        curves = Curves(segment.frames, segment.side, segment.direction, segment.count, segment.pace, size)
        segment.animate(curves)
        sheet = curves.sheet
        if sheets:
            before = sheets[-1][-1]
            sheet[:, CHANNEL["yaw"]] += before[CHANNEL["yaw"]]
            blend = _smoothstep(np.arange(1, min(8, len(sheet)) + 1) / min(8, len(sheet)))[:, None]
            sheet[: len(blend), _POSE] = before[_POSE] + blend * (sheet[: len(blend), _POSE] - before[_POSE])
        sheets.append(sheet)
    sheet = np.concatenate(sheets)
    if len(sheet) < min_frames:
        rest = np.repeat(sheet[-1:], min_frames - len(sheet), axis=0)
        rest[:, [CHANNEL[name] for name in ("air", "vf", "vs")]] = 0
        sheet = np.concatenate([sheet, rest])

    # Individual posture and a slow sway of every pose channel.
    seconds = np.arange(len(sheet))[:, None] / FPS
    posture = rng.normal(0, 0.04, len(_POSE))
    sway = 0.02 * np.sin(2 * np.pi * rng.uniform(0.15, 0.7, len(_POSE)) * seconds + rng.uniform(0, 6.28, len(_POSE)))
    legs = np.array([CHANNELS[index].split("_")[-1] in ("hip", "hipabd", "hiprot", "knee", "toe") for index in _POSE])
    sheet[:, _POSE] += np.where(legs, 0.3, 1.0) * (posture + sway)
    return forward_kinematics(sheet)
