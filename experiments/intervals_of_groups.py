"""Do intervals of an accuracy hold the truth as often as they say, where images come in groups?

Groups of 3 and 5 images are drawn whose chance of being right is a beta's, from independent images to groups that are all right or all
wrong; the interval is `evaluation.intervals.clustered`'s, beside Wilson's of the images as if they were single ones.

Cost: half a minute of one core. Result: experiments/README.md.
Command: python experiments/intervals_of_groups.py [--draws 800]
"""

import argparse
import itertools

import numpy as np

from imgclf.evaluation.intervals import clustered, wilson


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=800)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    print("| groups x images | accuracy | correlation within a group | by groups: holds, width | as single images: holds, width |")
    print("|---|---|---|---|---|")
    for groups, size, share, correlation in itertools.product((10, 20, 60, 200), (3, 5), (0.98, 0.9, 0.7), (0.0, 0.5, 0.95)):
        number, held, width = np.repeat(np.arange(groups), size), np.zeros(2), np.zeros(2)
        for _ in range(draws):
            chance = np.full(groups, share)
            if correlation:
                chance = rng.beta(share * (1 / correlation - 1), (1 - share) * (1 / correlation - 1), groups)
            correct = rng.random(len(number)) < chance[number]
            for way, (low, high) in enumerate((clustered(correct, number), wilson(int(correct.sum()), len(correct)))):
                held[way] += low <= share <= high
                width[way] += high - low
        cells = [f"{100 * h / draws:.1f} %, {100 * w / draws:.1f} points" for h, w in zip(held, width, strict=True)]
        print(f"| {groups} x {size} | {share:.0%} | {correlation} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
