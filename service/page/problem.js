// What went wrong, as the service says it or as the page finds it.

/** Something that went wrong: a problem document, or `server_gone`, `bad_answer`, `file_unreadable`, `cancelled`. */
export class Problem extends Error {
  /**
   * @param {string} code
   * @param {{status?: number, title?: string, detail?: string, retryAfter?: number | null, errors?: {field: string, message: string}[]}} [facts]
   */
  constructor(code, { status = 0, title = '', detail = '', retryAfter = null, errors = [] } = {}) {
    super(code);
    this.code = code;
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.retryAfter = retryAfter;
    this.errors = errors;
  }
}

/**
 * The problem in an answer that is none.
 *
 * @param {number} status
 * @param {string} text of the body
 * @param {string | null} retryAfter
 */
export function readProblem(status, text, retryAfter) {
  const seconds = retryAfter === null ? null : Number.parseFloat(retryAfter);
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    // a proxy's own page
  }
  const facts = { status, retryAfter: Number.isNaN(seconds) ? null : seconds };
  return typeof document?.code === 'string'
    ? new Problem(document.code, { ...document, ...facts })
    : new Problem('bad_answer', facts);
}
