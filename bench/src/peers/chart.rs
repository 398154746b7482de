//! A chart as SVG: a panel a metric, a bar a peer, the spread of the rounds as a line.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use crate::fabric::Peer;
use crate::samples::{Metric, Samples};

/// The metrics worth a panel.
const PANELS: [Metric; 6] = [
    Metric::OneStream,
    Metric::FourStreams,
    Metric::RoundTripMedian,
    Metric::NewConnections,
    Metric::Datagrams,
    Metric::Mesh,
];
const COLUMNS: usize = 2;
const PANEL_WIDTH: usize = 440;
const ROW_HEIGHT: usize = 20;
const HEADER: usize = 44;
/// Where bars begin, behind the names; the longest one ends at `BAR_END`.
const BAR_START: f64 = 90.0;
const BAR_END: f64 = 350.0;

/// Draws what was measured.
pub(crate) fn draw(samples: &Samples, caption: &str) -> String {
    let panel_height = HEADER + ROW_HEIGHT * Peer::value_variants().len();
    let rows = PANELS.len().div_ceil(COLUMNS);
    let (width, height) = (COLUMNS * PANEL_WIDTH, 50 + rows * panel_height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">vswitchd beside other dataplanes, medians</text>\n\
         <text x=\"10\" y=\"38\" font-size=\"9\" fill=\"#555\">{}</text>\n",
        escape(caption)
    );
    for (index, metric) in PANELS.into_iter().enumerate() {
        let (x, y) = (
            index % COLUMNS * PANEL_WIDTH,
            50 + index / COLUMNS * panel_height,
        );
        let _ = writeln!(svg, "<g transform=\"translate({x},{y})\">");
        panel(&mut svg, samples, metric);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, samples: &Samples, metric: Metric) {
    let less = matches!(metric, Metric::RoundTripMedian);
    let hint = if less {
        "less is better"
    } else {
        "more is better"
    };
    let title = match metric {
        Metric::RoundTripMedian => "TCP request/response, p50, us",
        other => other.title(),
    };
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"24\" font-weight=\"bold\">{title}<tspan font-weight=\"normal\" fill=\"#777\"> ({hint})</tspan></text>"
    );
    let peers = Peer::value_variants();
    let all = peers.iter().flat_map(|&peer| samples.values(peer, metric));
    let largest = all.copied().fold(0.0, f64::max);
    if largest <= 0.0 {
        return;
    }
    let scale = (BAR_END - BAR_START) / largest;
    for (row, &peer) in peers.iter().enumerate() {
        if let Some(median) = samples.median(peer, metric) {
            let y = HEADER + row * ROW_HEIGHT - 8;
            bar(
                svg,
                y,
                peer,
                samples.values(peer, metric),
                median,
                scale,
                &metric.show(median),
            );
        }
    }
}

fn bar(
    svg: &mut String,
    y: usize,
    peer: Peer,
    values: &[f64],
    median: f64,
    scale: f64,
    label: &str,
) {
    let color = if peer == Peer::Vswitchd {
        "#1f6fb4"
    } else {
        "#b8c4ce"
    };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let (x1, x2) = (BAR_START + least * scale, BAR_START + most * scale);
    let (baseline, middle, width) = (y + 11, y + 7, median * scale);
    let behind = x2.max(BAR_START + width) + 6.0;
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"{baseline}\">{peer}</text>\
         <rect x=\"{BAR_START}\" y=\"{y}\" width=\"{width:.1}\" height=\"14\" fill=\"{color}\"/>\
         <line x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#333\"/>\
         <text x=\"{behind:.1}\" y=\"{baseline}\">{label}</text>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_median_and_markup_in_the_caption_is_text() {
        let mut samples = Samples::default();
        samples.add(Peer::Veth, Metric::OneStream, 10.0);
        samples.add(Peer::Vswitchd, Metric::OneStream, 5.0);
        let svg = draw(&samples, "a <b> & c");
        assert!(svg.contains("a &lt;b&gt; &amp; c"), "{svg}");
        assert!(
            svg.contains("width=\"260.0\" height=\"14\" fill=\"#b8c4ce\""),
            "{svg}"
        );
        assert!(
            svg.contains("width=\"130.0\" height=\"14\" fill=\"#1f6fb4\""),
            "{svg}"
        );
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
    }
}
