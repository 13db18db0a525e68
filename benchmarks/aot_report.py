"""What the TPU compiler says of training steps, for pods that are not here.

    python benchmarks/aot_report.py [--only=NAME] [--pod=POD] [--products=int8]
                                    [--json=FILE]

Prints cycles, step time, MFU, peak memory and what a chip sends for the 1B and 8B
configs and the reference shape on three pods, or on another; takes libtpu (`pip install
.[tpu]`) and minutes for each line. `reference` is the shape with a published figure: a
Llama of width 2048, 16 layers, 16 heads of 128 on 8, feed-forward 8192, 32,768 tokens
untied, 2048 tokens a row and 4 rows a chip, cut over all chips, AdamW with float32
moments. MaxText 0.2.5 takes 628 M cycles of it on v5e:16x16 (7.4 GB of temporaries),
339 M (7.8) on v5p:4x4x4 and 327 M (8.0) on v6e:16x16, all without attention's kernel.
"""

import argparse
import json
import pathlib

from llm import config, units
from llm.errors import InputError
from llm.nn.low_precision import PRODUCTS
from llm.planning import aot, topology

PODS = ("v5e:16x16", "v5p:4x4x4", "v6e:16x16")
SIBLING = str(pathlib.Path(__file__).parent.parent / "configs" / "plan.py")


def cases():
    """{name: (config, rows of a device)}."""
    reference = config.load(SIBLING, "1b")
    reference.model.update(qk_norm=False, remat="selective")
    reference.objective.z_loss = 0.0
    eight = config.load(SIBLING, "8b")
    return {
        "reference": (reference, 4),
        "1b": (config.load(SIBLING, "1b"), 4),
        "8b": (eight, 1),
    }


def line(name, found, pod):
    """One row of the report."""
    if not found["fits"] or not found.get("cycles"):
        return f"{name:10} {found['topology']:10} {found.get('why', 'does not fit')}"
    sent = sum(x["bytes"] for x in found["collectives"])
    hours = 1e9 / found["tokens_per_s"] / 3600
    price = (
        f"${hours * pod.chips * pod.chip.price:.2f}" if pod.chip.price else "unknown"
    )
    return (
        f"{name:10} {found['topology']:10} "
        f"cycles {found['cycles'] / 1e6:6.1f} M "
        f"(with attention {found['total_cycles'] / 1e6:6.1f} M)  "
        f"step {found['step_s'] * 1e3:6.0f} ms  MFU {found['mfu']:5.1%}  "
        f"temporary {found['temporary_bytes'] / 1e9:5.2f} GB  "
        f"peak {units.size(found['peak_bytes'])}  sent {units.size(sent)}  "
        f"a billion tokens {price}"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=cases(), help="one shape instead of three")
    parser.add_argument("--pod", help="one pod instead of three")
    parser.add_argument("--products", default="dtype", choices=PRODUCTS)
    parser.add_argument("--json", help="where to write all figures")
    args = parser.parse_args()
    made = []
    try:
        for name, (c, rows) in cases().items():
            c.train.products = args.products
            for pod_name in (args.pod,) if args.pod else PODS:
                if args.only in (None, name):
                    pod = topology.find(pod_name)
                    found = aot.compiled(aot.placed(c, pod, rows), pod)
                    made.append({"case": name, "products": args.products, **found})
                    print(line(name, found, pod), flush=True)
                    if args.json:  # what is known if this is stopped
                        text = json.dumps(made, indent=1) + "\n"
                        pathlib.Path(args.json).write_text(text, encoding="utf-8")
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
