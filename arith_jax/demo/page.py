"""The page itself, in Gradio."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio import themes

from arith_jax.demo import growth, limits, server
from arith_jax.demo.actions import EXAMPLE, Actions, Request, Solved
from arith_jax.demo.models import Model

STYLE = pathlib.Path(__file__).with_name("style.css")
TITLE = "arith_jax: a small transformer that calculates"
# A click on a symbol of the answer.
CLICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-token]');
  if (!button) return;
  element.querySelectorAll('.picked').forEach((b) => b.classList.remove('picked'));
  button.classList.add('picked');
  trigger('select', {token: Number(button.dataset.token)});
});
"""
NO_PAIR = (
    "No model without a window is at hand. Train one in four minutes on a CPU: "
    "python launch.py --config=configs/abacus_soft_add.py:cpu --workdir=runs/soft, "
    "then start this page with --compare=runs/soft."
)


def make_page(actions: Actions) -> gr.Blocks:
    """The page, before it is served."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        head = gr.HTML(draw_head(next(iter(actions.models.values()))))
        with gr.Tab("Calculate"):
            add_calculator(actions, head)
        with gr.Tab("With and without a window"):
            add_comparison(actions)
    page.queue(max_size=limits.MAX_WAITING, api_open=False)
    return page


def draw_head(model: Model) -> str:
    """What the page is, in two sentences."""
    longest = max(model.max_cell)
    return (
        '<header class="head"><h1>Can a small transformer add?</h1><p>It learned from '
        f"numbers of at most <b>{longest} digits</b>. Give it longer ones, up to "
        f"{limits.MAX_DIGITS:,} digits: it writes the answer from the ones up, one "
        "digit at a time, as you would on paper.</p></header>"
    )


def add_calculator(actions: Actions, head: gr.HTML) -> None:
    """Fields, paper, attention and heat map; the head follows the model."""
    first = next(iter(actions.models.values()))
    request = Request(
        first.title,
        EXAMPLE[0],
        first.operators[0],
        EXAMPLE[1],
        first.experiment.model.num_recurrences,
    )
    # The page opens with an answer, which also compiles the programs.
    sheet, shown_map, solved = actions.show(request)
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            a = text_field("First number", EXAMPLE[0])
            sign = gr.Radio(
                first.operators,
                value=first.operators[0],
                show_label=False,
                visible=len(first.operators) > 1,
                elem_id="sign",
            )
            b = text_field("Second number", EXAMPLE[1])
        with gr.Column(scale=4, min_width=300):
            length_a = length_slider("Digits of the first number", 40)
            length_b = length_slider("Digits of the second number", 30)
            depth = gr.Slider(**depth_options(first), step=1, elem_id="recurrences")
    with gr.Row():
        go = gr.Button("Calculate", variant="primary", elem_id="calculate", scale=3)
        draw = gr.Button("Draw numbers", elem_id="draw", scale=2)
        title = gr.Dropdown(
            list(actions.models),
            value=first.title,
            label="Model",
            elem_id="model",
            scale=4,
        )
    paper = gr.HTML(sheet, elem_id="paper", js_on_load=CLICK)
    with gr.Row():
        with gr.Column(scale=7, min_width=320):
            reading = gr.HTML(actions.read(solved, None), elem_id="reading")
        with gr.Column(scale=3, min_width=300):
            heat = gr.HTML(shown_map, elem_id="map")
    state = gr.State(solved, time_to_live=3600)

    # One calculation at a time, whoever asks.
    event = functools.partial(dict, concurrency_id="model", api_visibility="private")
    fields, outputs = [title, a, sign, b, depth], [paper, heat, state]
    show = lambda *values: actions.show(Request(*values))
    read = {"fn": lambda solved: actions.read(solved, None), "inputs": [state]}
    read |= {"outputs": [reading], "show_progress": "hidden"}

    def change_model(title: Any) -> tuple[Any, Any, str]:
        model = actions.models.get(title, first) if isinstance(title, str) else first
        signs = gr.update(
            choices=model.operators,
            value=model.operators[0],
            visible=len(model.operators) > 1,
        )
        return signs, gr.update(**depth_options(model)), draw_head(model)

    def draw_numbers(length_a: Any, length_b: Any) -> tuple[Any, Any]:
        try:
            return actions.draw_numbers(length_a, length_b)
        except ValueError as error:
            raise gr.Error(str(error)) from error

    def select(solved: Solved | None, event_data: gr.EventData) -> str:
        return actions.read(solved, getattr(event_data, "token", None))

    for trigger in (go.click, a.submit, b.submit, depth.release, sign.input):
        trigger(show, fields, outputs, **event()).then(**read, **event())
    draw.click(draw_numbers, [length_a, length_b], [a, b], **event()).success(
        show, fields, outputs, **event()
    ).then(**read, **event())
    title.input(change_model, [title], [sign, depth, head], **event()).then(
        show, fields, outputs, **event()
    ).then(**read, **event())
    paper.select(select, [state], [reading], show_progress="hidden", **event())


def text_field(label: str, value: str) -> gr.Textbox:
    """A field for the digits of a number."""
    name = label.partition(" ")[0].lower()
    # No `max_length`: a browser would cut what is pasted without a word.
    return gr.Textbox(
        value,
        label=label,
        max_lines=3,
        elem_id=f"{name}-number",
        html_attributes=gr.InputHTMLAttributes(spellcheck=False),
    )


def length_slider(label: str, value: int) -> gr.Slider:
    """A slider for the length of a random number."""
    return gr.Slider(1, limits.MAX_DRAWN, value=value, step=1, label=label)


def depth_options(model: Model) -> dict[str, Any]:
    """The slider for recurrences, which models that are not looped do not have."""
    trained = model.experiment.model.num_recurrences
    return {
        "minimum": 1,
        "maximum": max(2, model.max_recurrences),
        "value": trained,
        "label": f"Recurrences (trained with {trained})",
        "visible": model.max_recurrences > 1,
    }


def add_comparison(actions: Actions) -> None:
    """Two models side by side as the numbers grow."""
    if len(actions.pair) < 2:
        gr.HTML(f'<p class="note">{NO_PAIR}</p>')
        return
    gr.HTML(growth.draw_difference(actions.pair))
    with gr.Row():
        longest = gr.Slider(
            10,
            limits.MAX_COMPARED,
            value=100,
            step=10,
            label="Up to so many digits",
        )
        grow = gr.Button("Let the numbers grow", variant="primary", elem_id="grow")
    table = gr.HTML("", elem_id="growth")

    def compare(longest: Any) -> Iterator[str]:
        yield from actions.compare(longest)

    grow.click(
        compare,
        [longest],
        [table],
        concurrency_id="model",
        api_visibility="private",
        show_progress="minimal",
    )


def serve(page: gr.Blocks, host: str, port: int | None) -> None:
    """Serves the page until Ctrl-C."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    names = server.trusted_names(host)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        show_error=False,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size="1kb",
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        state_session_capacity=limits.MAX_SESSIONS,
        app_kwargs={
            "middleware": [
                Middleware(TrustedHostMiddleware, allowed_hosts=names),
                Middleware(server.Gate),  # pyright: ignore
            ],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        theme=themes.Base(
            primary_hue="sky",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        css_paths=[STYLE],
        prevent_thread_lock=True,
    )
    print(f"page: {page.local_url} (Ctrl-C ends it)", flush=True)
    page.block_thread()
