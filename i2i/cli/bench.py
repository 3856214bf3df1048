"""i2i bench modes, i2i bench judges."""

from pathlib import Path
from typing import Annotated

from i2i.cli.application import command_group
from i2i.cli.options import NO_JSON, Device, Json, Plugins, argument, option, output_option
from i2i.errors import RequestError, require

app = command_group("Run the benchmarks of the documentation.")


@app.command()
def modes(
    names: Annotated[list[str] | None, argument(
        "[ring|grid|stacked-mnist]...", "By default ring and grid.")] = None,
    only: Annotated[str | None, option(
        "METHOD,METHOD", "By default all; gan, the baseline, is always among them.")] = None,
    seeds: Annotated[int, option(None, "Runs of each method.", min=1)] = 10,
    out: Annotated[str, option(
        "DIR", "Results; the same command continues where it stopped.")] = "runs/modes",
    steps: Annotated[str | None, option(
        "N", "Training steps, instead of each benchmark's own number.")] = None,
    settings: Annotated[list[str] | None, option(
        "KEY=VALUE", "A setting for all methods, such as generator.width=400.", "--set")] = None,
    mnist: Annotated[str | None, option(
        "DIR", "The idx files of MNIST; by default Debian's dataset-fashion-mnist.")] = None,
    jobs: Annotated[int, option(None, "Processes, of one thread each.", min=1)] = 1,
    docs: Annotated[str | None, option(
        "FILE.md", "Put tables between the markers of this page, and plots beside it.")] = None,
    costs: Annotated[bool, option(
        None, "Time each method against the baseline, after the runs.", "--costs/--no-costs")] = True,
    run: Annotated[bool, option(
        None, "--no-run: only write the tables of the results so far.", "--run/--no-run")] = True,
    json_output: Json = NO_JSON,
) -> None:
    """Mode collapse: how many modes of a known distribution each method covers, over seeds, and its cost."""
    from i2i.benchmarks import results_table, schedule
    from i2i.benchmarks.benchmark import select_benchmarks
    from i2i.benchmarks.methods import select_methods
    from i2i.config import parse
    length = None if steps is None else parse("--steps", steps, int)
    require(length is None or length >= 1, "--steps", length, "1 or more")
    requested = schedule.Schedule(tuple(select_benchmarks(names or [])),
                                  tuple(method.name for method in select_methods(only)), seeds, length,
                                  tuple(settings or ()), Path(mnist) if mnist else None, jobs)
    if mnist and "stacked-mnist" not in [benchmark.name for benchmark in requested.benchmarks]:
        raise RequestError(f"--mnist {mnist} is for stacked-mnist, which is not among the benchmarks")
    if docs and not Path(docs).is_file():
        raise RequestError(f"--docs {docs} is no file; accepted: a page with markers such as <!-- ring --> "
                           "and <!-- /ring -->")
    path, page = Path(out), Path(docs) if docs else None
    folder = schedule.open_folder(path)
    try:
        if run:
            schedule.run(requested, path, costs=costs, report=lambda line: print(line, flush=True))
        sections, results = results_table.write(requested, path, schedule.read_results(path), page)
        for text in sections:
            print("\n" + text, end="")
        print(f"\n{path}/table.md, table.json" + (f"; {docs}" if docs else ""))
        json_output.write(results)
    finally:
        folder.unlock()


@app.command()
def judges(
    names: Annotated[list[str] | None, argument(
        "[NETWORK]...", "Feature networks; by default all whose weights are here.")] = None,
    data: Annotated[str, option(
        "DIR|ZIP|NAME", "Real images, best with classes.")] = "fluent3d-64",
    n: Annotated[int, option("N", "Images of each set.", "--n", min=20)] = 200,
    docs: Annotated[str | None, option(
        "FILE.md", "Put the table between the markers of this page.")] = None,
    sheet: Annotated[str | None, output_option(
        "FILE.png|URL", "Write an image of the planted faults.")] = None,
    json_output: Json = NO_JSON, device: Device = "auto", plugin: Plugins = None,
) -> None:
    """What feature networks see of faults that are planted in real images, relative to mode collapse."""
    from PIL import Image

    from i2i.benchmarks.results_table import insert_tables
    from i2i.cli.progress import ProgressBars
    from i2i.data.image_set import ImageSet
    from i2i.data.labeled import find_images
    from i2i.data.sources import open_source
    from i2i.files import check_file, write_atomically
    from i2i.inference.device import best_device
    from i2i.metrics import planted_faults, sensitivity
    from i2i.metrics.feature_networks import available_networks, load_extractor
    check_file("--sheet", sheet)
    extractors = [load_extractor(name, device=str(best_device(device)))
                  for name in names or available_networks()]
    images = next(iter(find_images(open_source(data)).values()))
    try:
        sample = sensitivity.Sample.draw(ImageSet(images.source, images.names).read, len(images),
                                         None if images.labels is None else images.labels.tolist(), n)
    except ValueError as error:
        raise RequestError(f"--n {n}: {data}: {error}") from None
    if sheet:
        picture = Image.fromarray(planted_faults.sheet(sample.pool[:4]))
        write_atomically(Path(sheet), lambda path: picture.save(path, "png"))
    with ProgressBars() as bars:
        judged = {each.name: sensitivity.measure(each, sample, progress=bars.update) for each in extractors}
    table = sensitivity.table(judged)
    print(table, end="")
    json_output.write(sensitivity.figures(judged))
    if docs:
        insert_tables(Path(docs), {"judges": table})
