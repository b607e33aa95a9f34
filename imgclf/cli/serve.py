"""`imgclf serve`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import check_run
from imgclf.errors import UserError


def serve(  # noqa: PLR0913  (options by name)
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN|EXPORT...",
            help="Finished runs, saved models or exports to ONNX; the first one answers where a request names none.",
            show_default=False,
        ),
    ],
    port: Annotated[int, typer.Option(help="0 = any that is free.")] = 8000,
    host: Annotated[str, typer.Option(help="127.0.0.1 = this machine only; 0.0.0.0 = the network, too.")] = "127.0.0.1",
    engine: Annotated[str, typer.Option(help="jax, onnx, or auto: onnx for an export.")] = "auto",
    token: Annotated[
        str, typer.Option(envvar="IMGCLF_TOKEN", help="A secret that requests must bring: Authorization: Bearer TOKEN.", show_default=False)
    ] = "",
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="An origin whose pages may ask this server, such as https://example.org; may be given again."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help='The answer is "unknown" where the probability is lower and a request doesn\'t say.')
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Images per batch at most.")] = 16,
    max_wait_ms: Annotated[float, typer.Option(help="How long a batch waits for images that are being decoded, where batches pay.")] = 5.0,
    queue: Annotated[int, typer.Option(help="Images that may wait per model; beyond that: 503.")] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds from a request's whole body to its answer; then 504.")] = 30.0,
    max_image_mb: Annotated[float, typer.Option(help="Size of an image's file.")] = 20.0,
    max_request_mb: Annotated[float, typer.Option(help="Size of a request's body.")] = 64.0,
    max_images: Annotated[int, typer.Option(help="Images per request.")] = 64,
    max_megapixels: Annotated[float, typer.Option(help="Pixels of an image, refused before it is decoded.")] = 50.0,
    min_rate: Annotated[int, typer.Option(help="Bytes per second of a body; a slower one gets 408.")] = 1000,
) -> None:
    """Serves classifiers over HTTP, with a page to try them on.

    Images of concurrent requests are computed together. SIGTERM or Ctrl-C finish what was taken, SIGHUP reads the models anew.

    Examples:

      imgclf serve runs/photos

      imgclf serve runs/photos old=runs/photos-1 --port 9000

      imgclf serve exports/photos --engine onnx --host 0.0.0.0 --token SECRET

      curl -F image=@cat.jpg -F image=@dog.jpg http://127.0.0.1:8000/predict
    """
    if engine not in ("auto", "jax", "onnx"):
        raise UserError(f"--engine={engine} is unknown: jax, onnx, or auto, which is onnx for an export.")
    for source in sources:
        folder = Path(source if Path(source).exists() else source.partition("=")[2] or source)
        if not (folder / "export.json").exists():
            check_run(folder)
    from imgclf.serving.limits import MB, Limits, check_options
    from imgclf.serving.listening import bound

    limits = Limits(
        image_bytes=int(max_image_mb * MB),
        request_bytes=int(max_request_mb * MB),
        held_bytes=max(Limits.held_bytes, int(max_request_mb * MB)),
        images=max_images,
        pixels=int(max_megapixels * 1e6),
        queue=queue,
        seconds=timeout,
        bytes_per_second=min_rate,
    )
    check_options(threshold, max_batch, max_wait_ms)
    bound(host, port).close()
    endings.quieten()
    from imgclf.serving import server  # and JAX: after --help and the mistakes above

    server.serve(
        *sources,
        port=port,
        host=host,
        engine=engine,  # type: ignore[arg-type]  # checked above
        token=token,
        cors=cors or (),
        threshold=threshold,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        limits=limits,
    )
