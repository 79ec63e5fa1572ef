// Failures that the service reports or that the page detects.

/**
 * A failure: a problem document of the service, or a code of the page itself: `server_unreachable`, `bad_answer`,
 * `answer_incomplete`, `file_unreadable`, `cancelled`, `stream_lost`, `stream_refused`, `connection_slow`.
 */
export class Problem extends Error {
  /**
   * @param {string} code
   * @param {{status?: number, title?: string, detail?: string, retryAfter?: number | null, errors?: {field: string, message: string}[]}} [fields]
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
 * The problem in a response that is not an answer.
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
    // not a problem document, such as an error page of a proxy
  }
  const common = { status, retryAfter: Number.isNaN(seconds) ? null : seconds };
  return typeof document?.code === 'string'
    ? new Problem(document.code, { ...document, ...common })
    : new Problem('bad_answer', common);
}
