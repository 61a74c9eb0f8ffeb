"""The page in Chromium: it complains of nothing, fetches nothing, and every part of it answers."""

from pathlib import Path

import pytest

from .conftest import Opened, OpenPage

pytestmark = pytest.mark.browser
TABS = ("passes", "graph", "kernels", "memory")


def step_of(opened: Opened, name: str) -> int:
    """The number of the first pass of that name."""
    names = opened.page.locator("#strip .name").all_inner_texts()
    return names.index(name)


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_opens_quietly(explained: Path, open_page: OpenPage, width: int, scheme: str):
    opened = open_page(explained, width=width, color_scheme=scheme)
    for tab in TABS:
        opened.page.click(f"#tab-{tab}")
        assert opened.page.is_visible(f"#{tab}")
        text = opened.page.inner_text("body")
        assert not any(word in text.split() for word in ("null", "undefined", "NaN", "[object"))
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
    assert opened.complaints == []
    assert opened.requests == [explained.as_uri()]


def test_tabs_are_reached_by_keys(explained: Path, open_page: OpenPage):
    opened = open_page(explained)
    opened.page.focus("#tab-passes")
    for tab in (*TABS[1:], TABS[0]):
        opened.page.keyboard.press("ArrowRight")
        assert opened.page.is_visible(f"#{tab}")
    assert opened.complaints == []


def test_a_pass_shows_its_sites_and_leads_to_them(explained: Path, open_page: OpenPage):
    opened = open_page(explained)
    page = opened.page
    page.click("#passes-body button:text-is('recognize-rms-norm')")
    assert "9 matches" in page.inner_text("#sites")
    page.click("#sites summary:has-text('model.layers.*.input_layernorm')")
    page.click("#sites code:text-is('model.layers.1.input_layernorm')")
    assert page.is_visible("#graph")
    assert "removed" in page.inner_text("#caption-before")
    assert "added" in page.inner_text("#caption-after")
    assert "model.layers.1.input_layernorm" in page.inner_text("#details")
    assert opened.complaints == []


def test_near_misses_come_with_their_reasons(explained: Path, open_page: OpenPage):
    opened = open_page(explained)
    opened.page.click("#passes-body tr:has(td.warn)")
    assert opened.page.inner_text("#sites .reason")
    assert opened.page.locator("#sites .miss li").count() > 0


def test_choosing_a_pass_changes_the_graph(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "graph/0")
    page = opened.page
    traced = page.inner_text("#caption-after")
    assert page.is_hidden("#pane-before")
    last = page.locator("#strip button").count() - 1
    page.click(f"#strip button[data-step='{last}']")
    assert page.is_visible("#pane-before") and page.is_visible("#pane-after")
    assert page.inner_text("#caption-after") != traced
    assert page.evaluate("location.hash") == f"#graph/{last}"
    for view, hidden in (("before", "after"), ("after", "before")):
        page.click(f"#view-tools button[data-view='{view}']")
        assert page.is_visible(f"#pane-{view}") and page.is_hidden(f"#pane-{hidden}")
    assert opened.complaints == []


def test_a_weight_stored_otherwise_is_a_change(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "graph/0")
    page = opened.page
    page.click(f"#strip button[data-step='{step_of(opened, 'pack-weights')}']")
    assert "changed" in page.inner_text("#caption-after")
    page.click("#change-next")
    assert "rows → " in page.inner_text("#details")
    page.click("#strip button[data-step='0']")
    assert "→" not in page.inner_text("#details")
    assert opened.complaints == []


def test_search_finds_and_jumps(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "graph/0")
    page = opened.page
    page.keyboard.press("/")
    page.keyboard.type("paged_attention")
    assert page.inner_text("#found") == "2"
    chosen = []
    for number in (1, 2):
        page.keyboard.press("Enter")
        assert page.inner_text("#found") == f"{number} / 2"
        chosen.append(opened.chosen())
        assert f"model.layers.{number - 1}.self_attn" in page.inner_text("#details")
    assert len(set(chosen)) == 2
    page.fill("#search", "layers.1 norm weight rsqrt_no_such")
    assert page.inner_text("#found") == "none"
    assert opened.complaints == []


def test_opening_a_layer_draws_its_nodes(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "graph/0")
    page = opened.page
    folded = opened.boxes()
    page.focus("#canvas-after")
    for _ in range(folded):
        page.keyboard.press("j")
        if "layers" in (opened.chosen() or ""):
            break
    page.keyboard.press("Enter")
    opened_boxes = opened.boxes()
    assert opened_boxes > folded + 20
    assert int(page.get_attribute("#canvas-after", "data-drawn") or 0) > 3
    page.click("#fold")
    assert opened.boxes() == folded
    page.click("#unfold")
    assert opened.boxes() > opened_boxes


def test_a_click_on_a_folded_layer_opens_it(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "graph/0")
    page = opened.page
    folded = opened.boxes()
    place = page.evaluate(
        """() => {
          const pane = graphTab.panes.after;
          const box = pane.scene.boxes.find((b) => b.kind === "stack");
          pane.camera = { x: box.x - 100, y: box.y - 100, k: 1 };
          pane.draw();
          return { x: 100 + box.w / 2, y: 100 + box.h / 2 };
        }"""
    )
    page.click("#canvas-after", position=place)
    assert opened.boxes() > folded + 20


def test_wheel_and_keys_move_and_zoom(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "graph/0")
    page = opened.page
    page.click("#unfold")

    def camera() -> dict[str, float]:
        return page.evaluate("({ ...graphTab.panes.after.camera })")

    page.hover("#canvas-after")
    start = camera()
    page.mouse.wheel(0, 240)
    page.wait_for_function("(y) => graphTab.panes.after.camera.y > y", arg=start["y"])
    page.keyboard.down("Control")
    page.mouse.wheel(0, -240)
    page.keyboard.up("Control")
    page.wait_for_function("(k) => graphTab.panes.after.camera.k > k", arg=start["k"])
    page.focus("#canvas-after")
    near = camera()
    page.keyboard.press("-")
    assert camera()["k"] < near["k"]
    assert opened.complaints == []


def test_no_two_boxes_overlap(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "graph/0")
    opened.page.click("#unfold")
    overlaps = opened.page.evaluate(
        """() => {
          const { boxes } = graphTab.panes.after.scene;
          const apart = (a, b) => a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;
          return boxes.flatMap((a, i) => boxes.slice(0, i).filter((b) => !apart(a, b)).map((b) => [a.title, b.title]));
        }"""
    )
    assert overlaps == []


def test_operands_stand_above_their_users(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "graph/0")
    opened.page.click("#unfold")
    upside_down = opened.page.evaluate(
        """() => {
          const { scene, graph } = graphTab.panes.after;
          const box = (node) => scene.boxOf[node.index];
          const below = (node, user) => box(user).y >= box(node).y + box(node).h;
          return graph.nodes.flatMap((n) => n.users.filter((u) => !below(n, u)).map((u) => [n.name, u.name]));
        }"""
    )
    assert upside_down == []


def test_kernels_show_source_and_times(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "kernels")
    page = opened.page
    rows = page.locator("#kernels-body tr")
    for index in range(rows.count()):
        rows.nth(index).click()
        name = rows.nth(index).get_attribute("data-kernel")
        assert name and name in page.inner_text("#source pre.code")
    decode = page.inner_text("#kernels-body")
    assert "µs" in decode
    page.click("#phases button:text-is('prefill')")
    assert page.inner_text("#kernels-body") != decode
    page.click("#source summary")
    page.wait_for_selector("#source pre.library .keyword")
    page.click("#kernels-head button:text-is('kernel')")
    names = page.locator("#kernels-body tr").evaluate_all("(rows) => rows.map((row) => row.dataset.kernel)")
    assert names == sorted(names)
    assert opened.complaints == []


def test_the_arena_says_what_a_launch_holds(explained: Path, open_page: OpenPage):
    opened = open_page(explained, "memory")
    page = opened.page
    page.wait_for_function("document.getElementById('arena').dataset.drawn > 0")
    page.focus("#arena")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "Launch 1:" in page.inner_text("#launch")
    assert page.locator("#launch li").count() > 0
    at_512 = page.inner_text("#arena-summary")
    page.fill("#capacity", "1024")
    assert page.inner_text("#arena-summary") != at_512
    for choice in page.locator("#arena-choice option").evaluate_all("(options) => options.map((o) => o.value)"):
        page.select_option("#arena-choice", choice)
    assert opened.complaints == []
