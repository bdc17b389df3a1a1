"""A page to try trained models on, in a browser on this machine.

python -m arith_jax.demo [--checkpoint=DIR ...] [--compare=DIR] [--port=PORT]

Needs Gradio: pip install "arith-jax[demo]". Works offline, sends nothing anywhere, and
can be reached from this machine only, unless --host says otherwise.
"""

import importlib.util
import os
from collections.abc import Sequence

from absl import flags

from arith_jax import cli


def main(arguments: Sequence[str]) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        ValueError: If Gradio is not installed, or a folder holds no fitting model.
    """
    values = cli.new_flags()
    flags.DEFINE_multi_string(
        "checkpoint",
        [],
        "Workdir of a run, or a released folder, to offer first; may be repeated.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "compare",
        None,
        "Workdir of a run of sums without a window, for the comparison.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address to serve on; 0.0.0.0 lets the whole network in.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "port",
        None,
        "Port to serve on; default: the first free one from 7860 on.",
        lower_bound=1,
        upper_bound=65535,
        flag_values=values,
    )
    if cli.parse(values, arguments, __doc__ or ""):
        raise ValueError("arguments: this command takes flags only; see --help")
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(
            'gradio is not installed, which the page is made with; pip install "arith-'
            'jax[demo]"'
        )
    # Before Gradio and what it imports are loaded.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    from arith_jax.demo import models, page
    from arith_jax.demo.actions import Actions

    folders = [cli.local_path("checkpoint", text) for text in values.checkpoint]
    offered = models.find_models(folders)
    other = None
    if values.compare is not None:
        other = models.Model.in_folder(cli.local_path("compare", values.compare))
    pair = models.find_pair(offered, other)
    actions = Actions({model.title: model for model in offered}, pair)
    page.serve(page.make_page(actions), values.host, values.port)


if __name__ == "__main__":
    cli.run(main)
