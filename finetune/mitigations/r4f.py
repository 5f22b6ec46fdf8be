"""R3F with a head that cannot magnify: R4F (Aghajanyan et al. 2021, section 2; Miyato et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from finetune.core.errors import bad_input
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.noised import Noised, NoiseOptions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from finetune.core.hooks import TrainingState


class R4FOptions(NoiseOptions):
    """How much noise the input embeddings get, and how much it matters what the model makes of it."""

    type: Literal["r4f"]


@MITIGATIONS.register
class R4F(Noised):
    """R3F, with the last weight of the task's head held at spectral norm 1.

    The head then moves no further than the representation below it. The weight itself has the norm, at the start and
    after every step, so that what is saved is a plain model. Its gradient is that of a spectrally normalised weight
    (Miyato et al. 2018, section 2.4): without the part that only the normalisation would undo.

    Source: Aghajanyan et al. 2021, "Better Fine-Tuning by Reducing Representational Collapse", section 2.

    Not for: tasks without a head of their own; a language model's output layer is pretrained at another norm. For
    the rest see r3f.
    """

    name: ClassVar[str] = "r4f"
    Options = R4FOptions
    needs_head: ClassVar[bool] = True
    contradicts: ClassVar[dict[str, str]] = {**Noised.contradicts, "r3f": "it is r3f and more"}

    options: R4FOptions
    _name: str
    """Of the head's last weight, before a strategy wraps the model."""

    def prepare(self, model: PreTrainedModel, head: set[str], at: str) -> set[str]:
        matrices = [name for name, value in model.named_parameters() if name in head and value.ndim == 2]
        if not matrices:
            found = "holds the last weight of the task's new head at norm 1, and this task has no new head"
            raise bad_input(f"{at}.type", found, "use r3f")
        self._name = matrices[-1]
        return set()

    def begin(self, training_state: TrainingState) -> None:
        super().begin(training_state)
        self._normalise()

    def gradients(self) -> None:
        import torch

        gradient = self._weight.grad
        if gradient is None:
            return
        weights, slopes = self._matrices(self._weight.detach()), self._matrices(gradient)
        left, _, right = torch.linalg.svd(weights, full_matrices=False)
        outward = left[:, :, :1] * right[:, :1]
        slopes -= (slopes * weights).sum((1, 2), keepdim=True) * outward

    def stepped(self, rate: float) -> None:
        self._normalise()

    def _normalise(self) -> None:
        import torch

        matrices = self._matrices(self._weight.detach())
        matrices /= torch.linalg.matrix_norm(matrices, 2, keepdim=True)

    @property
    def _weight(self) -> torch.nn.Parameter:
        """Give the weight that learns: the head's own, or peft's copy of it."""
        module, _, key = self._name.rpartition(".")
        names = (f".{self._name}", f".{module}.modules_to_save.default.{key}")
        return next(value for name, value in self.training_state.parameters.items() if f".{name}".endswith(names))

    def _matrices(self, value: torch.Tensor) -> torch.Tensor:
        """View a value of the weight's shape as each replica's matrix, (R, outputs, inputs)."""
        return value.view(len(self.training_state.streams), *value.shape[-2:])
