"""What is seen while a run goes on: a bar on a terminal, one plain line an epoch elsewhere."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from resnet_cifar100.engine.state import TrainState


class RunProgress:
    """A bar over all steps of the run, with epoch, loss, learning rate, images/s and time left."""

    def __init__(self, state: TrainState, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[live]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.progress.add_task(
            "", total=state.total_steps, completed=state.step, epoch=_epoch_of(state), live=""
        )

    def start(self) -> None:
        """Show the bar, on a terminal."""
        self.progress.start()

    def stop(self) -> None:
        """Remove the bar."""
        self.progress.stop()

    def step(self, state: TrainState) -> None:
        """Move the bar; costs nothing and waits for nothing."""
        self.progress.update(self.task, completed=state.step, epoch=_epoch_of(state))

    def live(self, *, loss: float, lr: float, images_per_s: float) -> None:
        """Show the newest point of the loss curve."""
        text = f"loss {loss:.3f}  lr {lr:.4f}  {images_per_s:,.0f} images/s"
        self.progress.update(self.task, live=text)

    def epoch(self, row: dict[str, float], *, epochs: int, split: str, title: str) -> None:
        """Print the line of a finished epoch, measured on `split` of the data set with `title`."""
        self.console.print(
            f"{'SYNTHETIC ' if title == 'SYNTHETIC' else ''}epoch {row['epoch'] + 1:>3.0f}/{epochs}"
            f"  train loss {row['train/loss']:.4f}  train {row['train/top1']:7.2%}"
            f"  {split} loss {row[f'{split}/loss']:.4f}  {split} {row[f'{split}/top1']:7.2%}"
            f"  top-5 {row[f'{split}/top5']:7.2%}"
            f"  lr {row['lr']:.4f}  {row['speed/images_per_s']:,.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )


def _epoch_of(state: TrainState) -> str:
    return f"{min(state.epoch + 1, state.config.epochs)}/{state.config.epochs}"
