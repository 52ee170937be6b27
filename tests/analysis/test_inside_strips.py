"""Figures with faces: each curve, shade and picture is what was given, and no text is cut or covered."""

import numpy as np
import pytest

from featlab.analysis import style
from featlab.analysis.inside.faces import plot_clip, plot_pairs


def clip(n=40):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (12, 12, 3), dtype=np.uint8) for _ in range(n)]
    return images, rng.uniform(size=n), rng.uniform(size=n), (np.arange(n) // 10) % 2


def drawn(images, before, after, labels, title="a video", *, numbers=None, **options):
    numbers = np.arange(len(before)) if numbers is None else numbers
    return plot_clip(images, before, after, labels, title, positive="non-neutral", frame_numbers=numbers, **options)


def lines(axes, label):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines() if line.get_label() == label]


def test_a_clip_draws_the_probabilities_and_shades_the_truth(readable):
    images, before, after, labels = clip()
    figure = readable(drawn(images, before, after, labels, thumbnails=5))
    axes = figure.axes[0]
    assert lines(axes, "before") == [(list(range(40)), list(before))]
    assert lines(axes, "after") == [(list(range(40)), list(after))]
    spans = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    assert [(round(span.x0, 3), round(span.x1, 3)) for span in spans] == [(9.5, 19.5), (29.5, 39.5)]
    assert len(figure.axes) == 6


def test_each_thumbnail_is_the_frame_it_names_and_stands_beneath_it(readable):
    images, before, after, labels = clip()
    numbers = np.arange(40) * 3 + 7
    curve, *faces = readable(drawn(images, before, after, labels, numbers=numbers, thumbnails=4)).axes
    for face in faces:
        number = int(face.get_xlabel())
        assert np.array_equal(face.images[0].get_array(), images[list(numbers).index(number)])
        middle = face.get_window_extent().x0 + face.get_window_extent().width / 2
        place = curve.transData.transform((number, 0))[0]
        assert middle == pytest.approx(place, abs=0.02 * curve.figure.bbox.width)


def test_a_clip_may_have_no_images_one_frame_or_no_labels(readable):
    images, before, after, labels = clip(1)
    assert len(readable(drawn(None, before, after, labels)).axes) == 1
    # A single frame does not fill the page.
    assert readable(drawn(images, before, after, labels - 1)).get_figheight() < 3.1
    readable(drawn([None], before, after, labels, width=style.COLUMN))
    assert len(lines(drawn(None, before, after, labels).axes[0], "_half")) == 1
    assert not lines(drawn(None, before, after, labels, threshold=None).axes[0], "_half")


def test_a_long_title_is_within_the_figure_and_beside_no_legend(readable):
    for title in ("v", "participant_0041_session_2_camera_front_happiness_take_3", "long name " * 14):
        axes = readable(drawn(*clip(), title)).axes[0]
        assert axes.get_title(loc="left").split() == title.split()
        legend = axes.get_legend().get_window_extent()
        assert not axes._left_title.get_window_extent().overlaps(legend)


def test_pairs_show_the_given_images_strip_by_strip(readable):
    images = clip(3)[0]
    grey = [image[:, :, 0] for image in images]
    strips, titles = [images, grey, [images[0], None, images[2]]], ["row", "random", "landmark"]
    figure = readable(plot_pairs(strips, titles, [[""] * 3] * 3))
    for axes, given in zip(figure.axes, [image for strip in strips for image in strip], strict=True):
        assert bool(axes.images) == (given is not None)
        assert given is None or np.array_equal(axes.images[0].get_array(), given)
    assert [figure.axes[place].get_ylabel() for place in (0, 3, 6)] == titles


def test_long_captions_are_folded_and_none_covers_another(readable):
    image = np.zeros((6, 6, 3), dtype=np.uint8)
    caption = "participant_0041_session_2\nhappiness\n0.874"
    for count, picture, width in ((12, image, style.FULL), (12, None, style.FULL), (4, image, style.COLUMN)):
        strips = [[picture] * count] * 2
        figure = readable(plot_pairs(strips, ["row", "random\n(cosine)"], [[caption] * count] * 2, width=width))
        texts = [axes.xaxis.label if picture is not None else axes.texts[0] for axes in figure.axes]
        assert all(text.get_text().replace("\n", "").startswith("participant_0041_session_2") for text in texts)
        boxes = [text.get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[place + 1 :])
        if picture is None:
            assert figure.get_figheight() < 2.6
