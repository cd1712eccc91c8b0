"""`phi3kit serve`: a registered model behind OpenAI's API."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    model_uri: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/…, or a folder.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(help="A file with one key in a line.")] = None,
    no_api_key: Annotated[bool, typer.Option("--no-api-key", help="Let other machines ask without a key.")] = False,
    allow_origin: Annotated[list[str] | None, typer.Option(help="Of a web page that may ask; can be repeated.")] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Requests answered together: 8, or as memory allows.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of each: by default the model's context window.")] = None,
    kv_memory: Annotated[
        float | None, typer.Option(min=0.001, help="GB for their caches: by default a quarter of what is free.")
    ] = None,
    max_queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; over it, 429.")] = 64,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that a request may take.")] = 120,
) -> None:
    """Serve a registered model: /v1/chat/completions for OpenAI's clients, /invocations as MLflow does."""
    from phi3kit import tracking
    from phi3kit.system import requirements

    requirements.need_extra("`phi3kit serve`", "serve")
    import mlflow

    from phi3kit.serving.server import Settings
    from phi3kit.serving.server import serve as run

    tracking.verify(address := tracking.uri())
    mlflow.set_tracking_uri(address)
    settings = Settings(
        host=host,
        port=port,
        api_key_file=api_key_file,
        no_api_key=no_api_key,
        origins=tuple(allow_origin or ()),
        slots=slots,
        context=context,
        kv_memory=None if kv_memory is None else int(kv_memory * 1e9),
        max_queue=max_queue,
        timeout=timeout,
    )
    run(model_uri, settings, lambda line: typer.echo(line, err=True))
