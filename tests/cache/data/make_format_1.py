"""Makes format-1.h5 and format-1-pose.h5, the caches that every later featlab must still read.

Run once, with commit 1bb209c, the last to write statistics of layers and head pose; no later code can make them.
"""

from pathlib import Path

import numpy as np

from featlab.cache import (
    CacheBuilder,
    ExtractorInfo,
    LayerStats,
    Rows,
    open_cache,
)


def main(name, with_pose):
    rng = np.random.default_rng(20260101)
    names = [("p01", "calm"), ("p01", "talk"), ("p02", "calm"), ("é-3", "talk")]
    rows = 3 * len(names)
    landmarks = rng.uniform(0, 96, (rows, 5, 2)).astype(np.float32)
    landmarks[4] = np.nan
    info = ExtractorInfo("seeded", "none", "standard normal numbers", ("stem",), {"numpy": "any"})
    out = Path(__file__).with_name(name)
    classes = ("neutral", "happy", "pain")
    with CacheBuilder(out, extractor=info, classes=classes, neutral="neutral", has_pose=with_pose) as builder:
        builder.write_shard(
            "all",
            Rows(
                embeddings=rng.normal(size=(rows, 6)).astype(np.float32),
                labels=[("neutral", "happy", "pain", None)[row % 4] for row in range(rows)],
                subjects=[subject for subject, _ in names for _ in range(3)],
                videos=[video for _, video in names for _ in range(3)],
                frames=[10 * (row % 3) for row in range(rows)],
                landmarks=landmarks,
                layers={
                    "stem": LayerStats(
                        rng.normal(size=(rows, 2)).astype(np.float32), rng.uniform(0.1, 1, (rows, 2)).astype(np.float32)
                    )
                },
                paths=[f"{subject}/{video}/{10 * frame}.png" for subject, video in names for frame in range(3)],
                pose=landmarks.reshape(rows, -1)[:, :3] if with_pose else None,
            ),
        )
        builder.assemble(["all"])
    with open_cache(out, verify=True) as cache:
        print(cache.digest, cache.extractor.fingerprint)


if __name__ == "__main__":
    main("format-1.h5", with_pose=False)
    main("format-1-pose.h5", with_pose=True)
