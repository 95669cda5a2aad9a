"""Read a motion file, report what is wrong with it, and optionally write it as BVH or draw it.

python examples/inspect_your_motion.py kick.bvh --bvh copy.bvh --figure strip.png
"""

import argparse
import sys

from lexmotion import ReadingOptions, save_bvh
from lexmotion.processing.recordings import inspect_motion


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default="quickstart/example.npy", help="motion file (default: %(default)s)")
    parser.add_argument("--fps", type=float, help="frame rate, if the file does not state it")
    parser.add_argument("--bvh", help="BVH file to write")
    parser.add_argument("--figure", help="strip of stick figures to write (.png, .svg or .pdf)")
    arguments = parser.parse_args(argv)

    found = inspect_motion(arguments.file, ReadingOptions(fps=arguments.fps))
    for name, fact in found.facts.items():
        print(f"{name:10} {fact['value']}  ({fact['confidence']})")
    for name, value in found.measures.items():
        print(f"{name:20} {value:.3g}")
    for problem in found.problems:
        print(f"{problem.severity}: {problem}")
    if not found.usable or found.motion is None:
        sys.exit(f"{arguments.file}: a model cannot use this motion; see the problems above")

    motion = found.motion
    if arguments.bvh:
        save_bvh(arguments.bvh, motion.positions, fps=motion.fps)
        print(f"written: {arguments.bvh}")
    if arguments.figure:
        from lexmotion.evaluation.figures.drawing import facing_front, motion_strip, save_figure

        strip = motion_strip(facing_front(motion.positions, motion.skeleton), motion.skeleton, motion.fps)
        print(f"written: {save_figure(strip, arguments.figure)}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # such as a missing folder
        sys.exit(f"error: {error}")
