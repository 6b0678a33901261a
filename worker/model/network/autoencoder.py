"""The autoencoder over numbers and categories, which holds no one-hot row in memory where none is needed.

Notation: B rows, N numeric columns, C categorical columns, K one-hot columns (the sum of the C widths), L the width of
the latent, H the last hidden width.

A row is `numeric` float32 (B, N) and `category_ids` int (B, C). The network sees [numeric | one_hot(category_ids)]:
the one-hot product of the first layer is a sum of C embedding rows, and the squared error of a linear output needs no
one-hot column either (`Autoencoder.squared_errors`). So neither pass depends on K. A sigmoid output, or another error
than the squared one, needs `residual`, which computes all columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise, zip_longest
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.errors import SettingsError
from worker.registry import Registry

ACTIVATIONS: Registry[type[nn.Module]] = Registry("activation")
for _activation in (nn.ReLU, nn.Tanh, nn.SiLU, nn.GELU, nn.ELU, nn.Sigmoid, nn.Identity):
    ACTIVATIONS.register(_activation.__name__.lower(), _activation)

OUTPUTS: Registry[Callable[[Tensor], Tensor]] = Registry("output")
OUTPUTS.register("linear", lambda output: output)
OUTPUTS.register("sigmoid", torch.sigmoid)


class Rows(NamedTuple):
    """R rows. numeric: float32 (R, N); category_ids: int (R, C), int64 while they are fitted."""

    numeric: Tensor
    category_ids: Tensor

    def take(self, index: Tensor | slice) -> "Rows":
        """The rows at index (B,), or of a slice."""
        return Rows(self.numeric[index], self.category_ids[index])


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a row: N numbers, and the width of each of the C one-hot blocks."""

    numeric: int
    widths: tuple[int, ...]

    @property
    def columns(self) -> int:
        """All input columns, N + K."""
        return self.numeric + sum(self.widths)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First one-hot column of each block, within the K one-hot columns."""
        return tuple(accumulate(self.widths, initial=0))[:-1]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network between its input and its output.

    hidden             sizes of all hidden layers
    activation         after each of them: a name in ACTIVATIONS
    latent_at          which of them is the latent; None = the narrowest
    latent_activation  after the latent; None = as after the others
    output             `linear`, or `sigmoid`, which answers from 0 to 1
    batch_norm         between each hidden layer and its activation
    dropout            share dropped after each hidden layer while fitting: one number goes for all of them, of several
                       each for one, and 0 for the rest
    variational        the latent is drawn around a mean while fitting, and is the mean afterwards
    """

    hidden: tuple[int, ...] = (128, 64, 128)
    activation: str = "relu"
    latent_at: int | None = None
    latent_activation: str | None = None
    output: str = "linear"
    batch_norm: bool = False
    dropout: tuple[float, ...] = ()
    variational: bool = False

    def __post_init__(self) -> None:
        if self.variational and self.latent_index == 0:
            raise SettingsError(
                "[model.options] variational = True: needs at least one hidden layer before the latent, "
                f"[model.hidden] makes the layers {list(self.hidden)}"
            )

    @property
    def latent_index(self) -> int:
        """The latent's place among the hidden layers."""
        return self.hidden.index(min(self.hidden)) if self.latent_at is None else self.latent_at

    @property
    def latent(self) -> int:
        """Width of the latent, L."""
        return self.hidden[self.latent_index]

    def weights(self, columns: int) -> int:
        """About how many weights a network over so many input columns has."""
        return sum(wide * narrow for wide, narrow in pairwise((columns, *self.hidden, columns)))

    def describe(self, columns: int) -> str:
        """All layers in short, such as 41-64-32-64-41."""
        return "-".join(map(str, (columns, *self.hidden, columns)))

    def layers(self) -> tuple[list[nn.Module], int]:
        """All that lies between the first linear layer and the output, and how many of these end with the latent."""
        layers: list[nn.Module] = []
        latent_end = 0
        shares = self.dropout * len(self.hidden) if len(self.dropout) == 1 else self.dropout
        for index, (size, share) in enumerate(zip_longest(self.hidden, shares[: len(self.hidden)], fillvalue=0)):
            is_latent = index == self.latent_index
            # A variational latent is two outputs a unit, mean and log-variance: neither is bent, scaled or dropped.
            is_drawn = is_latent and self.variational
            if index:
                layers.append(nn.Linear(self.hidden[index - 1], 2 * size if is_drawn else size))
            if not is_drawn:  # in PyOD's order: batch norm, activation, dropout
                layers += [nn.BatchNorm1d(size)] if self.batch_norm else []
                layers.append(ACTIVATIONS[(self.latent_activation if is_latent else None) or self.activation]())
                layers += [nn.Dropout(share)] if share > 0 else []
            if is_latent:
                latent_end = len(layers)
        return layers, latent_end


Gram = tuple[Tensor, Tensor, Tensor]


class WeighedForms(NamedTuple):
    """What `Autoencoder.weighed_errors` needs of a network and its factors, see `Autoencoder.weighed_forms`.

    gram    of the blocks whose factors are the same in every row, by their factors
    blocks  the other blocks one after the other, S columns of them in all, float (S, H + 1): of each a matrix M so that
            its outputs y have y·y = |M [h, 1]|²
    column  the column of a row's factors that belongs to each of these, int (S,)
    """

    gram: Gram
    blocks: Tensor
    column: Tensor


class Autoencoder(nn.Module):
    """`[numeric | one-hot]` to itself through the hidden layers.

    table           (K, H1), the first layer's weights of the one-hot columns
    out_categories  (K, H), the last layer's

    >>> _ = torch.manual_seed(0)
    >>> network = Autoencoder(Layout(numeric=2, widths=(3, 40_000)), Architecture(hidden=(8, 4, 8))).eval()
    >>> numeric, category_ids = torch.randn(5, 2), torch.tensor([[1, 31_234]] * 5)
    >>> hidden = network.encode(numeric, category_ids)
    >>> network.squared_errors(hidden, numeric, category_ids).shape  # no 40,003 columns were made for it
    torch.Size([5])
    >>> network.residual(hidden, numeric, category_ids).shape  # here they are
    torch.Size([5, 40005])
    """

    offsets: Tensor

    def __init__(self, layout: Layout, architecture: Architecture) -> None:
        super().__init__()
        self.layout = layout
        self.architecture = architecture
        first, last = architecture.hidden[0], architecture.hidden[-1]
        one_hot = max(sum(layout.widths), 1)
        bound = layout.columns**-0.5  # as nn.Linear would over the whole [numeric | one-hot] row
        self.first = _linear(layout.numeric, first, bound)
        self.table = nn.Parameter(torch.empty(one_hot, first).uniform_(-bound, bound))
        layers, self._latent_end = architecture.layers()
        self.hidden = nn.Sequential(*layers)
        self.out_numeric = _linear(last, layout.numeric, last**-0.5)
        self.out_categories = _linear(last, one_hot, last**-0.5)
        self.register_buffer("offsets", torch.tensor(layout.offsets, dtype=torch.long), persistent=False)

    @property
    def has_linear_output(self) -> bool:
        """Whether squared errors need no one-hot column."""
        return self.architecture.output == "linear"

    def _to_latent(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        hidden: Tensor = self.first(numeric)
        if self.layout.widths:
            hidden = hidden + functional.embedding_bag(category_ids + self.offsets, self.table, mode="sum")  # (B, H1)
        for layer in list(self.hidden)[: self._latent_end]:
            hidden = layer(hidden)
        return hidden

    def latent_distribution(self, numeric: Tensor, category_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of a variational latent, both float32 (B, L)."""
        mean, log_variance = self._to_latent(numeric, category_ids).chunk(2, dim=1)
        return mean, log_variance

    def latent(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """The latent, float32 (B, L); of a variational one its mean."""
        if self.architecture.variational:
            return self.latent_distribution(numeric, category_ids)[0]
        return self._to_latent(numeric, category_ids)

    def decode(self, latent: Tensor) -> Tensor:
        """Last hidden layer (B, H) from a latent (B, L)."""
        for layer in list(self.hidden)[self._latent_end :]:
            latent = layer(latent)
        return latent

    def encode(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """Last hidden layer, float32 (B, H)."""
        return self.decode(self.latent(numeric, category_ids))

    def outputs(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What the network answers from the last hidden layer: numbers (B, N) and one-hot columns (B, K)."""
        answer = OUTPUTS[self.architecture.output]
        return answer(self.out_numeric(hidden)), answer(self.out_categories(hidden)[:, : sum(self.layout.widths)])

    def gram(self) -> Gram:
        """(G, g, k) with `sum over all one-hot columns of y² = h'Gh + g·h + k`: (H, H), (H,), scalar."""
        weight, bias = self.out_categories.weight, self.out_categories.bias
        return weight.T @ weight, 2 * (weight.T @ bias), bias @ bias

    def weighed_forms(self, factors: Tensor, optional: Tensor) -> WeighedForms:
        """For `weighed_errors`.

        factors    on the squared error of each numeric column and each block, (N + C,)
        optional   the blocks whose factor is 0 in some rows, bool (C,)
        """
        layout, output = self.layout, self.out_categories
        size = output.weight.shape[1] + 1
        of_blocks = factors[layout.numeric :]
        widths = torch.tensor(layout.widths, dtype=torch.int64, device=factors.device)
        every = torch.cat([output.weight, output.bias[:, None]], 1)  # (K, H + 1)
        whole = every.T @ (every * (of_blocks * ~optional).repeat_interleave(widths)[:, None])
        blocks, column = [every[:0]], [self.offsets[:0]]
        for place in optional.nonzero()[:, 0].tolist():
            block = every[layout.offsets[place] : layout.offsets[place] + layout.widths[place]]  # (V, H + 1)
            # R'R = M'M, so a block wider than the last hidden layer costs no more than one as wide.
            block = torch.linalg.qr(block.double(), mode="r").R.to(block) if len(block) > size else block
            blocks.append(block)
            column.append(torch.full_like(self.offsets[:1], layout.numeric + place).expand(len(block)))
        gram = whole[:-1, :-1].contiguous(), 2 * whole[:-1, -1], whole[-1, -1]
        return WeighedForms(gram, torch.cat(blocks), torch.cat(column))

    def weighed_errors(
        self, hidden: Tensor, numeric: Tensor, category_ids: Tensor, factors: Tensor, forms: WeighedForms
    ) -> Tensor:
        """`squared_errors` of a linear output with a factor on each numeric column and each block, float (B,).

        factors   (B, N + C): those of `forms`, or 0 for a number or an optional block that a row lacks; or (1, N + C)
        """
        of_numbers, of_blocks = factors[:, : self.layout.numeric], factors[:, self.layout.numeric :]
        total: Tensor = ((self.out_numeric(hidden) - numeric).square() * of_numbers).sum(1)
        if not self.layout.widths:
            return total
        square, linear, constant = forms.gram
        index, of_blocks = category_ids + self.offsets, of_blocks.expand(category_ids.shape).contiguous()
        true = functional.embedding_bag(index, self.out_categories.weight, mode="sum", per_sample_weights=of_blocks)
        true = (true * hidden).sum(1) + (self.out_categories.bias[index] * of_blocks).sum(1)
        total = total + ((hidden @ square + linear) * hidden).sum(1) + constant - 2 * true + of_blocks.sum(1)
        if len(forms.blocks):
            outputs = hidden @ forms.blocks[:, :-1].T + forms.blocks[:, -1]  # (B, S)
            total = total + (outputs.square() * factors[:, forms.column]).sum(1)
        return total

    def residual(self, hidden: Tensor, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """Answer minus truth in every column, float32 (B, N + K), from the last hidden layer (B, H)."""
        expected, output = self.outputs(hidden)
        if self.layout.widths:
            index = category_ids + self.offsets
            output = output.scatter_add(1, index, -torch.ones_like(index, dtype=output.dtype))
        return torch.cat([expected - numeric, output], 1)

    def squared_errors(self, hidden: Tensor, numeric: Tensor, category_ids: Tensor, gram: Gram | None = None) -> Tensor:
        """Squared error of each row over its columns, float32 (B,), without its K one-hot columns.

        With outputs y and the true category t, the squared error of one block is

            |y - e_t|² = y·y - 2 y[t] + 1

        y = Wh + b is linear, so the sum of y·y over the blocks is a quadratic form of the last hidden layer whose
        matrix W'W is (H, H), whatever K is; and of y only C columns a row are looked up.

        It works badly where y·y and 2 y[t] nearly cancel: the difference of large float32 numbers can come out a little
        below zero, and of a very good network its last digits are noise. Scores are clamped at 0 for that reason, and
        golden rows have an absolute tolerance. A sigmoid output has no such form: there all columns are computed.

            hidden        last hidden layer, float32 (B, H)
            category_ids  int (B, C)
            gram          of this network, see `gram`, where the caller has it: one does for many batches

        Vincent, P., de Brébisson, A., Bouthillier, X. (2015): Efficient exact gradient update for training deep
        networks with very large sparse targets. NeurIPS 28. (Its loss; the gradient here is autograd's.)
        """
        if not self.has_linear_output:
            return self.residual(hidden, numeric, category_ids).square().sum(1)
        total: Tensor = (self.out_numeric(hidden) - numeric).square().sum(1)
        if not self.layout.widths:
            return total
        square, linear, constant = self.gram() if gram is None else gram
        index = category_ids + self.offsets  # (B, C)
        # sum over the blocks of y[t]: the rows of the C true categories are added up before the product with h
        weights = functional.embedding_bag(index, self.out_categories.weight, mode="sum")  # (B, H)
        true = (weights * hidden).sum(1) + self.out_categories.bias[index].sum(1)
        squares = ((hidden @ square + linear) * hidden).sum(1) + constant
        return total + (squares - 2 * true + len(self.layout.widths))


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence (B,) of the latents' distribution from the standard normal (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def _linear(inputs: int, outputs: int, bound: float) -> nn.Linear:
    """A linear layer with weights in ±bound. Unlike nn.Linear's own start it takes 0 inputs or outputs in silence."""
    layer = nn.Linear(1, 1)
    layer.in_features, layer.out_features = inputs, outputs
    layer.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
    layer.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
    return layer
