import numpy as np
import pytest
import torch

from featlab.config.load import Config
from featlab.config.sections import HeadConfig
from featlab.model.head import train_heads
from featlab.model.pretrain import episodic_pairs, pretrain_translators
from featlab.model.style_bank import SourceRows
from featlab.pairing.pairs import make_pairs

SMALL = {"hidden": 8, "epochs": 2, "batch": 16, "lr": 0.01}


@pytest.fixture(scope="module")
def source(people):
    table = people(subjects=4, frames=5)
    return SourceRows.of(table, torch.from_numpy(table.embeddings), make_pairs(table, Config().pair, seed=0))


@pytest.mark.parametrize("axis", ["subject", "vector"])
def test_models_that_are_trained_together_are_those_that_are_trained_alone(axis, source):
    rests = [source.without(torch.tensor([person])) for person in (0, 2)]
    labels = [rest.labels.numpy().astype(np.int16) for rest in rests]
    config = HeadConfig(bottleneck=6, epochs=3, batch=16, noise=0.1)
    values = SMALL | {"axis": axis}
    pretrain = Config().with_values({f"pretrain.{key}": value for key, value in values.items()}, "test").pretrain
    heads = train_heads(source.features, labels, 2, config, seed=3)
    together, _ = pretrain_translators(rests, heads, pretrain, share=0.9, seed=0)
    for rest, codes, head, translator in zip(rests, labels, heads, together, strict=True):
        same = train_heads(source.features, [codes], 2, config, seed=3)[0]
        (alone,), _ = pretrain_translators([rest], [head], pretrain, share=0.9, seed=0)
        # Not the tensors: BatchNorm takes away what a bias before it adds, so that rounding alone moves it.
        for one, other in ((same, head), (alone, translator)):
            torch.testing.assert_close(one(source.features), other(source.features), atol=2e-3, rtol=1e-3)
        assert not torch.equal(translator(source.features), together[0](source.features)) or translator is together[0]


def test_of_models_with_unequal_rows_each_takes_as_many_steps_as_the_largest(source):
    few = source.without(torch.tensor([0, 1]))
    assert len(episodic_pairs(few)) < len(episodic_pairs(source))
    labels = [rest.labels.numpy().astype(np.int16) for rest in (source, few)]
    heads = train_heads(source.features, labels, 2, HeadConfig(bottleneck=6, epochs=3, batch=16), seed=0)
    steps = 3 * (int((source.labels >= 0).sum()) // 16)
    assert [int(head.norm.num_batches_tracked) for head in heads] == [steps, steps]
