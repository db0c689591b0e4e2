"""Commands `storage check` and `storage serve`, about where studies are stored."""

from typing import Annotated

import typer

from nas_recalib.cli.output import print_json, say
from nas_recalib.options import AsJson

storage = typer.Typer(help="Test a storage of studies, or serve one to other machines.")
Url = Annotated[
    str,
    typer.Argument(
        help="sqlite:///PATH, postgresql://USER@HOST/NAME, journal:///PATH, grpc://HOST:PORT or another that "
        "SQLAlchemy supports.",
        metavar="URL",
    ),
]
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@storage.command()
def check(url: Url, as_json: AsJson = False) -> None:
    """Test a storage: write trials, read them back, delete them.

    Prints how fast it is and how many workers it can serve. Exit status 1 if it fails or loses what was
    written.
    """
    import optuna

    from nas_recalib.errors import StopSearch
    from nas_recalib.study.storage import hide_password
    from nas_recalib.study.storage_check import check_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        report = check_storage(url)
    except StopSearch as problem:
        if as_json:
            print_json({"storage": hide_password(url), "problem": str(problem)})
        raise
    if as_json:
        print_json(report.as_dict())
    else:
        print(*report.lines(), sep="\n")


@storage.command()
def serve(
    url: Url,
    host: Annotated[str, typer.Option(help="Address to listen on.", metavar="HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65_535, metavar="PORT")] = 13000,
) -> None:
    """Serve a database to other machines through a gRPC proxy.

    Workers share this process's few connections to the database. Start them
    with --storage grpc://HOST:PORT. The port has no authentication.
    """
    import optuna

    from nas_recalib.study.storage import hide_password
    from nas_recalib.study.storage_check import serve_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if host not in _LOOPBACK:
        say(
            f"warning: {host}:{port} has no authentication, and anyone who reaches it can read, change and "
            "delete every study; admit only the workers by a firewall, or use --host 127.0.0.1 and ssh"
        )
    serve_storage(url, host, port, lambda: say(f"serving {hide_password(url)} as grpc://{host}:{port}"))
