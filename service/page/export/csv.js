// Tables as comma-separated values (RFC 4180).

import { roundSeconds } from '../common/format.js';

/**
 * A CSV file.
 *
 * @param {(string | number)[][]} rows
 * @returns {Blob}
 */
export function csvBlob(rows) {
  const text = rows.map((row) => `${row.map(encodeField).join(',')}\r\n`).join('');
  return new Blob(['\ufeff', text], { type: 'text/csv' }); // spreadsheets recognise UTF-8 by the byte order mark
}

/**
 * Scores over time as rows of a CSV file.
 *
 * @param {import('../api/http-api.js').Frames} frames
 */
export function frameRows({ start, hop, window, labels, scores }) {
  return [
    ['start', 'end', ...labels],
    ...scores.map((row, index) => [
      roundSeconds(start + index * hop),
      roundSeconds(start + index * hop + window),
      ...row,
    ]),
  ];
}

/**
 * Segments as rows of a CSV file.
 *
 * @param {import('../api/http-api.js').Segment[]} segments
 */
export function segmentRows(segments) {
  const labels = segments[0]?.scores.map(({ label }) => label) ?? [];
  return [
    ['start', 'end', 'channel', 'label', 'score', ...labels],
    ...segments.map(({ start, end, channel, label, score, scores }) => [
      roundSeconds(start),
      roundSeconds(end),
      channel ?? '',
      label,
      score,
      ...scores.map((each) => each.score),
    ]),
  ];
}

/** @param {string | number} value */
function encodeField(value) {
  if (typeof value === 'number') {
    return String(value);
  }
  // A spreadsheet would evaluate a file name that starts like a formula.
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
