/**
 * Comma-separated values (RFC 4180).
 *
 * @param {(string | number)[][]} rows
 * @returns {string}
 */
export function encodeCsv(rows) {
  return rows.map((row) => `${row.map(field).join(',')}\r\n`).join('');
}

/** @param {string | number} value */
function field(value) {
  if (typeof value === 'number') {
    return String(value);
  }
  // A spreadsheet would run a file's name that begins like a formula.
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
