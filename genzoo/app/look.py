"""How the page looks: the system's own letters, one quiet colour, room to breathe, light and dark."""

from __future__ import annotations

import gradio as gr

THEME = gr.themes.Base(
    primary_hue="teal",
    secondary_hue="teal",
    neutral_hue="slate",
    radius_size="md",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    block_border_width="1px",
    block_shadow="none",
    block_label_text_size="*text_sm",
    button_large_text_weight="600",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_600",
    button_primary_text_color="white",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    block_info_text_color="*neutral_500",
    block_info_text_color_dark="*neutral_400",
)

CSS = """
.gradio-container {max-width: 1180px !important; width: 100% !important; margin: 0 auto !important}
.gradio-container {padding: 8px clamp(0px, 1.5vw, 16px) 40px !important}
.gradio-container main, .gradio-container .main {padding: 4px clamp(6px, 1.5vw, 16px) !important}
.gradio-container main {width: 100% !important}
#tabs button[role=tab] {padding-left: clamp(6px, 2vw, 16px); padding-right: clamp(6px, 2vw, 16px)}
footer {display: none !important}
#title h1 {font-size: 1.35rem; margin: 0}
#title p {margin: 2px 0 0; opacity: .75}
.note, .note > label, .note .input-container {border: 0 !important; background: transparent !important}
.note textarea {border: 0 !important; box-shadow: none !important; background: transparent !important;
  resize: none; padding: 4px 2px !important; opacity: 1 !important;
  color: var(--body-text-color-subdued) !important; -webkit-text-fill-color: currentColor}
.grid-wrap {height: auto !important; max-height: 560px !important; min-height: 160px}
input:is([role=listbox], [role=combobox]) {text-overflow: ellipsis !important; padding-right: 34px !important}
.pixels img {image-rendering: pixelated}
.mono textarea {font-family: var(--font-mono); font-size: .85rem}
.runs .wrap {flex-direction: column; align-items: stretch; gap: 6px}
.runs label {font-variant-numeric: tabular-nums; min-width: 0; max-width: 100%}
.runs label span {overflow-wrap: anywhere; min-width: 0}
.empty {padding: 18px !important;
  border: 1px dashed var(--border-color-primary) !important; border-radius: 10px}
:focus-visible {outline: 3px solid var(--primary-500) !important; outline-offset: 2px}
"""
